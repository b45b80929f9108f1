// Package rules evaluates the conditions (CEL expressions) of policies. It
// knows what an expression may use and how much it may cost, and nothing of
// what follows from it.
package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"

	"github.com/carillon-rt/carillon/proto/app"
)

const (
	// textBytesMax is the length of the longest expression.
	textBytesMax = 4 << 10
	// costMax bounds an evaluation, in CEL's units: about one for each step.
	costMax = 10_000
)

// Question is what an expression looks at.
type Question struct {
	Channel string
	User    string // "" for nobody
	Client  string // id of the connection
	// Meta and Info are what the connect decision said, JSON or "". Claims are
	// those of the subscription's token or, without one, of the connection's,
	// JSON or "".
	Meta, Info string
	Claims     []byte
	// Data is what is published.
	Data []byte
}

// Rule is a compiled expression. It may be used by many goroutines at once.
type Rule struct {
	program  cel.Program
	mentions map[string]bool // names of the variables that it uses
}

// errCost says that an evaluation was ended.
var errCost = fmt.Errorf("the expression costs more than %d steps", costMax)

// environment is what expressions may use. Values that come from JSON are
// dynamic: whether a field is there is for the expression to ask.
func environment() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("channel", cel.StringType),
		cel.Variable("user", cel.StringType),
		cel.Variable("client", cel.StringType),
		cel.Variable("meta", cel.DynType),
		cel.Variable("attrs", cel.DynType), // another name of meta
		cel.Variable("info", cel.DynType),
		cel.Variable("claims", cel.DynType),
		cel.Variable("data", cel.DynType),
		cel.ParserExpressionSizeLimit(textBytesMax),
		cel.ParserRecursionLimit(50),
	)
}

// Compile compiles an expression. The error says where it is wrong, on one
// line.
func Compile(text string) (*Rule, error) {
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("CEL: %w", err)
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, fmt.Errorf("column %d: %s", max(first.Location.Column()+1, 1), strings.ReplaceAll(first.Message, "\n", " "))
	}
	if out := ast.OutputType(); !out.IsExactType(cel.BoolType) && !out.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("it gives %s, want a condition, such as user != \"\"", out)
	}
	program, err := env.Program(ast, cel.CostLimit(costMax), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, err
	}
	return &Rule{program, mentioned(ast)}, nil
}

// mentioned lists the variables that an expression uses.
func mentioned(ast *cel.Ast) map[string]bool {
	names := map[string]bool{}
	for _, ref := range ast.NativeRep().ReferenceMap() {
		if ref.Name != "" {
			names[ref.Name] = true
		}
	}
	return names
}

// Claims says whether the rule looks at claims. A rule that is nil does not.
func (r *Rule) Claims() bool { return r != nil && r.mentions["claims"] }

// Holds evaluates the rule. An error (a field that is not there, a cost over
// the limit) is not a yes.
func (r *Rule) Holds(q *Question) (bool, error) {
	vars, err := r.variables(q)
	if err != nil {
		return false, err
	}
	out, _, err := r.program.Eval(vars)
	if err != nil {
		if strings.Contains(err.Error(), "cost limit") {
			return false, errCost
		}
		return false, err
	}
	holds, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("the expression gave %s, want true or false", out.Type().TypeName())
	}
	return holds, nil
}

// variables are the values of what the rule mentions: nothing else is decoded.
func (r *Rule) variables(q *Question) (map[string]any, error) {
	vars := map[string]any{"channel": q.Channel, "user": q.User, "client": q.Client}
	for _, of := range [...]struct {
		name string
		json []byte
	}{{"meta", []byte(q.Meta)}, {"attrs", []byte(q.Meta)}, {"info", []byte(q.Info)}, {"claims", q.Claims}} {
		if !r.mentions[of.name] {
			continue
		}
		value, err := decoded(of.json)
		if err != nil {
			return nil, errors.New(of.name + ": not JSON")
		}
		vars[of.name] = value
	}
	if r.mentions["data"] {
		data, err := decoded(q.Data)
		if err != nil {
			data = string(q.Data) // binary, or text of its own
		}
		vars["data"] = data
	}
	return vars, nil
}

// decoded gives JSON as expressions see it; nothing is an empty object.
func decoded(raw []byte) (any, error) {
	if len(raw) == 0 {
		return map[string]any{}, nil
	}
	var v any
	err := json.Unmarshal(raw, &v)
	return v, err
}

// OfPolicy are the rules of a policy; nil where there is none.
type OfPolicy struct{ Subscribe, Publish *Rule }

// Mistake is an expression that does not compile.
type Mistake struct {
	Policy int    // its place in the app's list
	Field  string // subscribe_if or publish_if
	Err    error
}

// OfApp compiles the rules of an app's policies, in their order.
func OfApp(a *app.App) ([]OfPolicy, []Mistake) {
	rules := make([]OfPolicy, len(a.Policies))
	var mistakes []Mistake
	for i := range a.Policies {
		p := &a.Policies[i]
		for _, f := range []struct {
			field, text string
			to          **Rule
		}{{"subscribe_if", p.SubscribeIf, &rules[i].Subscribe}, {"publish_if", p.PublishIf, &rules[i].Publish}} {
			if f.text == "" {
				continue
			}
			var err error
			if *f.to, err = Compile(f.text); err != nil {
				mistakes = append(mistakes, Mistake{i, f.field, err})
			}
		}
	}
	return rules, mistakes
}
