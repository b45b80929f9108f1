package pusher

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/message"
)

// Carillon's extension of the protocol: a client that adds "resume" to the
// data of pusher:subscribe keeps its place in the channel.
//
//	> {"event":"pusher:subscribe","data":{"channel":"news","resume":{"position":"71680","epoch":"k3q..."}}}
//	< {"event":"pusher_internal:subscription_succeeded","channel":"news",
//	   "data":"{\"resume\":{\"recovered\":true,\"position\":\"73728\",\"epoch\":\"k3q...\"}}"}
//	< {"event":"said","channel":"news","data":"...","position":"72704"}   what was missed, then what is live
//
// Members of resume, all optional: position and epoch, as they were told last;
// socket_id, the connection that had them; rewind, the number of the newest
// events that are wanted without a place.

const (
	epochBytesMax  = 64
	socketBytesMax = 64
	positionMax    = 1<<53 - 1
)

// decodeResume reads the value of "resume", which is valid JSON. null and
// false ask for nothing, true and {} for a place. What is wrong is told by the
// session, as an error of the subscription.
func decodeResume(value []byte) *resume.Wish {
	switch value[0] {
	case 'n', 'f':
		return nil
	case 't':
		return &resume.Wish{}
	case '{':
	default:
		return &resume.Wish{Wrong: `"resume" is not an object with position and epoch, or rewind`}
	}
	w := &resume.Wish{}
	placed := false
	for name, value := range members(value) {
		if value[0] == 'n' { // null is the same as nothing
			continue
		}
		var err error
		switch name {
		case "position":
			placed = true
			w.Since.Position, err = positionOf(value)
		case "epoch":
			w.Since.Epoch, err = shortString(name, value, epochBytesMax)
		case "socket_id":
			w.Socket, err = shortString(name, value, socketBytesMax)
		case "rewind":
			w.Rewind, err = rewindOf(value)
		}
		if err != nil {
			return &resume.Wish{Wrong: err.Error()}
		}
	}
	if placed != (w.Since.Epoch != "") {
		w.Wrong = `"resume" needs position and epoch together: one says nothing without the other`
	}
	return w
}

// positionOf reads a position, which is told as a string; a number will do.
func positionOf(value []byte) (message.Position, error) {
	text := string(value)
	if value[0] == '"' {
		text = unquote(value)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > positionMax {
		return 0, fmt.Errorf(`"position" is %s, want it as it was told, such as "73728"`, brief(value))
	}
	return message.Position(n), nil
}

func rewindOf(value []byte) (int, error) {
	n, err := strconv.Atoi(string(value))
	if err != nil || n < 1 || n > resume.RewindMax {
		return 0, fmt.Errorf(`"rewind" is %s, want a whole number from 1 to %d`, brief(value), resume.RewindMax)
	}
	return n, nil
}

func shortString(name string, value []byte, bytesMax int) (string, error) {
	if value[0] != '"' || len(value) > bytesMax+2 {
		return "", fmt.Errorf("%q is %s, want it as it was told: a string of up to %d bytes", name, brief(value), bytesMax)
	}
	return unquote(value), nil
}

// brief is as much of a value as an error shows.
func brief(value []byte) string {
	const most = 40
	if len(value) > most {
		return strings.ToValidUTF8(string(value[:most]), "") + "..."
	}
	return string(value)
}

// appendResume adds the answer to a wish to the data of
// subscription_succeeded, an object with or without other members.
func appendResume(data []byte, others bool, a *resume.Answer) []byte {
	data = data[:len(data)-1]
	if others {
		data = append(data, ',')
	}
	data = append(data, `"resume":{"recovered":`...)
	data = strconv.AppendBool(data, a.Recovered)
	if !a.Kept {
		return append(data, `,"error":"the channel keeps no history for clients: see history.recover of its policy"}}`...)
	}
	data = append(data, `,"position":"`...)
	data = strconv.AppendUint(data, uint64(a.Place.Position), 10)
	data = append(data, `","epoch":`...)
	data = jsonx.AppendString(data, a.Place.Epoch)
	return append(data, "}}"...)
}
