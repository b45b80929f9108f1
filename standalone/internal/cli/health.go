package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

type healthCommand struct {
	URL     string        `default:"http://127.0.0.1:9601" help:"The node's ops port."`
	Timeout time.Duration `default:"3s" help:"How long to wait for the answer."`
}

// answerMax is how much of an answer is shown, in bytes.
const answerMax = 16 << 10

// Run asks /readyz and passes on what is not ready.
func (c healthCommand) Run(ctx context.Context, s surroundings) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.URL, "/")+"/readyz?verbose", nil)
	if err != nil {
		return usageError{fmt.Errorf("--url: %w", err)}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no answer from the node: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return fmt.Errorf("read the node's answer: %w", err)
	}
	fmt.Fprintf(s.stdout, "%s\n", strings.TrimSpace(string(body)))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the node is not ready (%s)", res.Status)
	}
	return nil
}
