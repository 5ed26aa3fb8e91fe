// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/policy"
)

// Options are how to replay. The zero value answers with JSON, by the judge's own settings.
type Options struct {
	// Policy gives the number of steps, the time and what is judged; nil: that of the rollout, where the looks say it, or else an
	// hour, five minutes a step.
	Policy *v1alpha1.RolloutPolicySpec
	// Explain answers with sentences, and ends with a chart.
	Explain bool
	// Warnings is where to say what is odd in the policy and in the looks, and does not keep them from being judged; a line for
	// each kind of oddity, once. nil: nowhere.
	Warnings io.Writer
}

// answer is what is said after each look.
type answer struct {
	Look     int             `json:"look"`
	Time     float64         `json:"time"`
	Step     int             `json:"step"`
	Weight   int             `json:"weight"`
	Verdict  analysis.Result `json:"verdict"`
	Evidence float64         `json:"evidence"`
	Cause    string          `json:"cause"`
}

// byteOrderMark begins files that some editors write.
var byteOrderMark = []byte("\uFEFF")

// maxLine bounds a line of input: thousands of pods with all of Envoy's buckets.
const maxLine = 64 << 20

// Run answers every line of in before it reads the next.
func Run(in io.Reader, out io.Writer, o Options) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	r := replay{options: o}
	if o.Policy != nil {
		r.wonderAtPolicy(o.Policy, len(o.Policy.Analysis.Metrics))
	}
	n := 1
	for ; lines.Scan(); n++ {
		text := bytes.TrimSpace(bytes.TrimPrefix(lines.Bytes(), byteOrderMark))
		if len(text) == 0 {
			continue
		}
		r.line = n
		reply, err := r.look(text)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if _, err := out.Write(reply); err != nil {
			return fmt.Errorf("writing the answer to line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading line %d: %w", n, err)
	}
	if r.looks == 0 {
		r.line = n
		r.warn("no looks", "there are no looks; expected one JSON object a line: "+format)
	}
	if o.Explain {
		if _, err := io.WriteString(out, chart(r.path, r.threshold)); err != nil {
			return fmt.Errorf("writing the chart: %w", err)
		}
	}
	return nil
}

// replay is what is known between two lines.
type replay struct {
	options Options
	state   analysis.State
	line    int // number of the line, from 1 on
	looks   int
	warned  map[string]bool // by kind of oddity
	rollout Rollout
	// step is the current one, judged for how long those before it were.
	step      int
	judged    time.Duration
	path      []float64 // evidence, look by look
	threshold float64
}

// look answers one line.
func (r *replay) look(text []byte) ([]byte, error) {
	l, unknown, err := read(text)
	if err != nil {
		return nil, err
	}
	look, err := l.look()
	if err != nil {
		return nil, err
	}
	r.wonder(l, unknown, look.Time)
	r.follow(l, look)
	step := r.step
	if l.Waiting {
		step++
	}
	s := settings(cmp.Or(r.options.Policy, r.rollout.Policy), r.rollout, step, r.judged)
	state, verdict := analysis.Judge(s, r.state, look)
	r.state = state
	r.looks++
	now := state.Evidence(s)
	if now.HarmThreshold == 0 {
		now.Harm = 1 // nothing is known yet, or nothing is compared
	}
	if look.Weight > 0 {
		r.path, r.threshold = append(r.path, now.Harm), now.HarmThreshold
	}
	a := answer{
		Look: r.looks, Time: *l.Time, Step: look.Step, Weight: look.Weight,
		Verdict: verdict.Result, Evidence: now.Harm, Cause: verdict.Cause,
	}
	if r.options.Explain {
		return []byte(sentence(a, verdict.Message)), nil
	}
	reply, err := json.Marshal(a)
	return append(reply, '\n'), err
}

// wonder warns of what is odd in a look.
func (r *replay) wonder(l line, unknown []string, at time.Time) {
	for _, field := range unknown {
		name := field[strings.LastIndex(field, ".")+1:]
		r.warn("field "+name, fmt.Sprintf("%q is no field of a look and is left aside (%s)", name, field))
	}
	for _, wrong := range l.doubtful() {
		r.warn("counts", wrong+"; the judge takes no more than can be")
	}
	if last := r.state.Last; r.looks > 0 && !at.After(last) {
		r.warn("time", fmt.Sprintf("time is %s, after %s in a line before; such a look counts as seen already, or, a minute back, as "+
			"a clock that was set", seconds(*l.Time), seconds(float64(last.Unix())+float64(last.Nanosecond())/1e9)))
	}
}

// wonderAtPolicy warns of a policy that can be used, but hardly for what it is for. It has so many metrics of its own.
func (r *replay) wonderAtPolicy(p *v1alpha1.RolloutPolicySpec, metrics int) {
	if r.options.Warnings == nil {
		return
	}
	if unjudged := policy.Unjudged(p); unjudged != "" && metrics == len(p.Analysis.Metrics) {
		fmt.Fprintln(r.options.Warnings, "Warning: policy:", unjudged)
	}
	if metrics > 0 {
		fmt.Fprintf(r.options.Warnings, "Warning: policy: looks have no metrics of your own, so the verdicts are those without its analysis.metrics (%d)\n", metrics)
	}
}

// warn says something about the current line, unless something of its kind was said.
func (r *replay) warn(kind, what string) {
	if r.options.Warnings == nil || r.warned[kind] {
		return
	}
	if r.warned == nil {
		r.warned = map[string]bool{}
	}
	r.warned[kind] = true
	fmt.Fprintf(r.options.Warnings, "Warning: line %d: %s\n", r.line, what)
}

// follow notes what the looks are of, and when steps begin.
func (r *replay) follow(l line, look analysis.Look) {
	if l.Rollout != nil {
		r.rollout = *l.Rollout
		if p := r.rollout.Policy; p != nil && r.options.Policy == nil {
			r.wonderAtPolicy(p, r.rollout.Metrics)
		}
	}
	if look.Weight <= 0 {
		return
	}
	if look.Step != r.step && r.state.Weight > 0 {
		r.judged += r.state.InStep
	}
	if l.Judged != nil {
		r.judged = time.Duration(*l.Judged * float64(time.Second))
	}
	r.step = look.Step
}
