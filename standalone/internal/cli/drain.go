package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

type drainCommand struct {
	URL     string        `default:"http://127.0.0.1:9601" help:"The node's ops port, on this host."`
	Timeout time.Duration `default:"90s" help:"How long to wait for the end; the drain goes on all the same."`
}

// Run asks the node to drain and waits until it has. The process then waits
// for its SIGTERM.
func (c drainCommand) Run(ctx context.Context, s surroundings) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.URL, "/")+"/drain", nil)
	if err != nil {
		return usageError{fmt.Errorf("--url: %w", err)}
	}
	res, err := http.DefaultClient.Do(req)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the node has not drained within %s, it goes on", c.Timeout)
	}
	if err != nil {
		return fmt.Errorf("no answer from the node: %w", err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return fmt.Errorf("read the node's answer: %w", err)
	}
	answer := strings.TrimSpace(string(raw))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the node says (%s): %s", res.Status, answer)
	}
	fmt.Fprintln(s.stdout, answer)
	return nil
}
