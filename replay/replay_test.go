// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/golden"
)

func readFile(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func run(t *testing.T, in []byte, o Options) string {
	t.Helper()
	var out bytes.Buffer
	if err := Run(bytes.NewReader(in), &out, o); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// An incident: two minutes of history, a candidate that is fine for 30 s and fails 6 % then, a missing look.
func TestAnIncident(t *testing.T) {
	incident := readFile(t, "testdata/incident.jsonl")
	golden.CheckAll(t, "testdata/*.out", map[string][]byte{
		"testdata/json.out":    []byte(run(t, incident, Options{})),
		"testdata/explain.out": []byte(run(t, incident, Options{Explain: true})),
	})
}

func TestBadLinesSayWhatIsExpected(t *testing.T) {
	good := `{"time":5,"weight":0,"step":0,"stable":{"a":{"requests":1,"errors":0}}}`
	for line, want := range map[string]string{
		`hello`:                         `expected one JSON object`,
		`[1]`:                           `expected one JSON object`,
		`{"time":1}{"time":2}`:          `expected one JSON object`,
		`{"weight":10}`:                 `"time" is missing; expected seconds`,
		`{"time":1e300,"missing":true}`: `"time" is 1e+300; expected seconds`,
		`{"time":1e999,"missing":true}`: `time: expected a number, and 1e999 is none or too large`,
		`{"time":1,"missing":true,"since":1e300}`:                                     `"since" is 1e+300; expected when the weight came into force`,
		`{"time":1,"missing":true,"judged":-1}`:                                       `"judged" is -1; expected for how many seconds`,
		`{"time":1,"missing":true,"rollout":{"replicas":-1}}`:                         `"rollout" has -1 replicas and 0 metrics; expected at least 0`,
		`{"time":1,"missing":true,"rollout":{"replicas":1.5}}`:                        `rollout.replicas: expected a whole number, and 1.5 is none or too large`,
		`{"time":1,"missing":true,"rollout":{"policy":{"steps":[{"weight":"all"}]}}}`: `rollout.policy.steps.weight: expected a whole number, not string`,
		`{"time":1,"weight":101}`:                                                     `"weight" is 101; expected a percentage from 0 to 100`,
		`{"time":1,"weight":2.5}`:                                                     `"weight" is 2.5; expected a percentage from 0 to 100, a whole number`,
		`{"time":1,"step":-1}`:                                                        `"step" is -1; expected an index`,
		`{"time":1,"step":1e300}`:                                                     `"step" is 1e+300; expected an index`,
		`{"time":1,"weight":10}`:                                                      `expected counts by pod, or "missing":true`,
		`{"time":1,"candidatePods":-1,"stable":{}}`:                                   `"candidatePods" is -1; expected how many pods`,
		`{"time":1,"stable":{"a":{"requests":1,"errors":-1}}}`:                        `stable pod "a": errors is -1; expected how many were counted`,
		`{"time":1,"stable":{"a":{"request":5}}}`:                                     `stable pod "a": "requests" is missing; expected how many were completed`,
		`{"time":1,"stable":{"a":null}}`:                                              `stable pod "a": "requests" is missing`,
		`{"time":1,"stable":{"a":{"requests":9,"slower":{"0.1":1,"0.10":5}}}}`:        `pod "a": "slower" has 0.1 s twice`,
		`{"time":1,"stable":{"a":{"requests":0.5}}}`:                                  `stable pod "a": requests is 0.5; expected how many`,
		`{"time":1,"candidate":{"a":{"requests":1,"slower":{"fast":1}}}}`:             `"slower" has "fast"; expected seconds above 0`,
		`{"time":1,"candidate":{"a":{"requests":1,"slower":{"0.1":-1}}}}`:             `slower than 0.1 is -1`,
		`{"time":1,"candidate":{"a":{"requests":"many"}}}`:                            `candidate.requests: expected a number, not string`,
		`{"time":1,"candidate":[]}`:                                                   `candidate: expected an object, not array`,
		`{"time":1,"weight":10,"weight":20}`:                                          `duplicate field "weight"; expected each field once`,
		`{"time":1,"stable":{"a":{"requests":1},"a":{"requests":2}}}`:                 `duplicate field "stable.a"; expected each field once`,
		`{"time":1,"candidate":{"a":{"requests":1,"slower":{"-Inf":1}}}}`:             `"slower" has "-Inf"`,
	} {
		t.Run(line, func(t *testing.T) {
			err := Run(strings.NewReader(good+"\n\n"+line+"\n"), io.Discard, Options{})
			if err == nil || !strings.Contains(err.Error(), "line 3: ") || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want line 3 and %q", err, want)
			}
		})
	}
}

func TestOddLooksAreJudgedAndNamed(t *testing.T) {
	good := `{"time":5,"weight":10,"step":0,"candidate":{"n":{"requests":1}},"stable":{"a":{"requests":9}}}`
	for line, want := range map[string]string{
		good + "\n" + `{"time":10,"weight":10,"note":1,"stable":{"a":{"requests":1,"error":1}},"candidate":{"b":{"requests":1,"error":1}}}`: `Warning: line 2: "note" is no field of a look and is left aside (note)
Warning: line 2: "error" is no field of a look and is left aside (stable.a.error)
`,
		good + "\n" + good + "\n" + good: "Warning: line 2: time is 5, after 5 in a line before; such a look counts as seen already, or, a minute back, as a clock that was set\n",
		`{"time":5,"stable":{"a":{"requests":9,"errors":10}}}`: `Warning: line 1: stable pod "a": 10 errors of 9 requests; the judge takes no more than can be
`,
		`{"time":5,"candidate":{"a":{"requests":9,"slower":{"0.1":3,"0.05":2,"1":4}}}}`: `Warning: line 1: candidate pod "a": 3 requests slower than 0.1 s, of 2 slower than 0.05 s; the judge takes no more than can be
`,
		`{"time":5,"candidate":{"a":{"requests":9,"served":3,"slower":{"0.1":4}}}}`: `Warning: line 1: candidate pod "a": 4 requests slower than 0.1 s, of 3 in all; the judge takes no more than can be
`,
		"":              "Warning: line 1: there are no looks; expected one JSON object a line: " + format + "\n",
		"\uFEFF" + good: "",
	} {
		t.Run(line, func(t *testing.T) {
			var warnings, out bytes.Buffer
			if err := Run(strings.NewReader(line), &out, Options{Warnings: &warnings}); err != nil {
				t.Fatal(err)
			}
			if got := warnings.String(); got != want {
				t.Errorf("warned of\n%swant\n%s", got, want)
			}
			if lines := strings.Count(line, "{\"time"); strings.Count(out.String(), "\n") != lines {
				t.Errorf("%d looks were answered with\n%s", lines, out.String())
			}
		})
	}
}

func TestALineMayNotBeEndless(t *testing.T) {
	endless := io.MultiReader(strings.NewReader(`{"time":5,"missing":true}`+"\n"), strings.NewReader(strings.Repeat(" ", maxLine+1)))
	if err := Run(endless, io.Discard, Options{}); err == nil || !strings.Contains(err.Error(), "reading line 2: ") {
		t.Errorf("got %v, want an error that names line 2", err)
	}
}

// A simulator that sends the next look only after the answer to the one before.
func TestEveryLineIsAnsweredBeforeTheNext(t *testing.T) {
	in, send := io.Pipe()
	receive, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- Run(in, out, Options{})
		out.Close()
	}()
	answers := bufio.NewScanner(receive)
	step, weights := 0, []int{10, 25, 50}
	for i := 1; step < len(weights); i++ {
		if i > 200 {
			t.Fatal("never passed")
		}
		fmt.Fprintf(send, `{"time":%d,"weight":%d,"step":%d,"candidate":{"n":{"requests":400,"errors":0}},"stable":{"o":{"requests":3600,"errors":2}}}`+"\n", 5*i, weights[step], step)
		if !answers.Scan() {
			t.Fatal("no answer")
		}
		var a answer
		if err := json.Unmarshal(answers.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		if a.Look != i || a.Weight != weights[step] || a.Step != step {
			t.Fatalf("look %d answered with %+v", i, a)
		}
		if a.Verdict == "Pass" {
			step++
		}
	}
	send.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWholeNumbersMayHaveAPoint(t *testing.T) {
	got := run(t, []byte(`{"time":5.0,"weight":10.0,"step":1.0,"candidate":{"n":{"requests":1e2}},"stable":{"o":{"requests":900.0}}}`), Options{})
	if !strings.HasPrefix(got, `{"look":1,"time":5,"step":1,"weight":10,"verdict":"Undecided"`) {
		t.Errorf("got %s", got)
	}
}

func TestLatencyIsReplayed(t *testing.T) {
	var b strings.Builder
	for i := range 40 {
		weight, candidate := 0, ""
		if i >= 20 {
			weight = 10
			candidate = `"candidate":{"n":{"requests":1000,"errors":0,"slower":{"0.1":300,"0.25":40}}},`
		}
		fmt.Fprintf(&b, `{"time":%d,"weight":%d,"step":0,%s"stable":{"a":{"requests":4500,"errors":4,"slower":{"0.1":400,"0.25":20}},"b":{"requests":4500,"errors":4,"slower":{"0.1":410,"0.25":21}}}}`+"\n", 5*i, weight, candidate)
	}
	out := run(t, []byte(b.String()), Options{})
	if !strings.HasSuffix(out, `"cause":"Latency/0.25"}`+"\n") {
		t.Errorf("a slow candidate ended with\n%s", out[len(out)-200:])
	}
}

func TestPolicy(t *testing.T) {
	policy, err := Policy([]byte("apiVersion: headgate.dev/v1alpha1\nkind: RolloutPolicy\nmetadata: {name: web}\nspec:\n  maxDuration: 2m\n  steps: [{weight: 10}, {weight: 50}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Policy([]byte("# a policy of ours\n---\nkind: RolloutPolicy\n---\n")); err != nil {
		t.Errorf("a policy below a comment: %v", err)
	}
	s := settings(policy, Rollout{}, 0, 0)
	if s.Steps != 2 || s.MaxStepTime != 80*time.Second || s.PlannedLooks != 25 {
		t.Errorf("got %+v", s)
	}
	if s = settings(policy, Rollout{}, 1, 80*time.Second); s.MaxStepTime != 40*time.Second {
		t.Errorf("last step: got %+v", s)
	}
}

// With a shorter policy the same looks are inconclusive earlier.
func TestAnotherPolicyOnTheSameLooks(t *testing.T) {
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, `{"time":%d,"weight":10,"step":0,"candidate":{"n":{"requests":1}},"stable":{"o":{"requests":9}}}`+"\n", 5*i)
	}
	policy, err := Policy([]byte("kind: RolloutPolicy\nspec: {maxDuration: 1m, steps: [{weight: 10}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	looks := []byte(b.String())
	if out := run(t, looks, Options{}); strings.Contains(out, "Inconclusive") {
		t.Errorf("inconclusive within five minutes:\n%s", out)
	}
	first := strings.Index(run(t, looks, Options{Policy: policy}), `"look":12,"time":55,"step":0,"weight":10,"verdict":"Inconclusive"`)
	if first < 0 {
		t.Errorf("not inconclusive after a minute:\n%s", run(t, looks, Options{Policy: policy}))
	}
}

// What the looks say of their rollout counts: its policy, unless another is to be tried; which steps an autoscaler's few pods carry; that time
// in a pause is none of the step's.
func TestLooksThatSayWhatTheyAreOf(t *testing.T) {
	looks := func(rollout, more string) []byte {
		var b strings.Builder
		for i := range 30 {
			if fmt.Fprintf(&b, `{"time":%d,"weight":10,"step":0,"candidate":{"n":{"requests":1}},"stable":{"o":{"requests":9}}%s`, 5*i, rollout); i > 3 {
				b.WriteString(more)
			}
			rollout = ""
			b.WriteString("}\n")
		}
		return []byte(b.String())
	}
	const policy = `,"rollout":{"stable":"aaa","candidate":"bbb","policy":{"maxDuration":"2m","steps":[{"weight":10},{"weight":50}]}%s}}`
	of := func(more string) string { return fmt.Sprintf(strings.TrimSuffix(policy, "}"), more) }
	longer, err := Policy([]byte("kind: RolloutPolicy\nspec: {maxDuration: 1h}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		in   []byte
		o    Options
		want int // first look that is inconclusive; 0: none
		warn string
	}{
		"its own policy":          {looks(of(""), ""), Options{}, 16, ""},
		"and metrics of its own":  {looks(of(`,"metrics":2`), ""), Options{}, 16, "without its analysis.metrics (2)"},
		"another policy":          {looks(of(`,"metrics":2`), ""), Options{Policy: longer}, 0, ""},
		"few pods carry one step": {looks(of(`,"autoscaled":true,"replicas":10`), ""), Options{}, 24, ""},
		"a pause":                 {looks(of(""), `,"paused":true`), Options{}, 0, ""},
		"it waits for the next step, which has all that is left": {looks(of(""), `,"waiting":true`), Options{}, 24, ""},
		"the time was used up before":                            {looks(of(""), `,"judged":60`), Options{}, 6, ""},
		"the step began again at once":                           {looks(of(""), `,"since":19`), Options{}, 20, ""},
		"nothing, which is five minutes":                         {looks("", ""), Options{}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var warnings bytes.Buffer
			tc.o.Warnings = &warnings
			out := strings.Split(run(t, tc.in, tc.o), "\n")
			first := 1 + slices.IndexFunc(out, func(line string) bool { return strings.Contains(line, "Inconclusive") })
			if first != tc.want {
				t.Errorf("inconclusive at look %d, want %d:\n%s", first, tc.want, strings.Join(out, "\n"))
			}
			if got := warnings.String(); !strings.Contains(got, tc.warn) || (got == "") != (tc.warn == "") {
				t.Errorf("warned of %q, want %q", got, tc.warn)
			}
		})
	}
}

func FuzzRun(f *testing.F) {
	f.Add([]byte(`{"time":5,"weight":10,"step":0,"candidate":{"a":{"requests":1e300,"errors":9,"slower":{"0.1":7}}},"stable":{"b":{"requests":3}}}`))
	f.Add([]byte("{\"time\":-5,\"missing\":true}\n{\"time\":1e10,\"weight\":100,\"stable\":{}}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		_ = Run(bytes.NewReader(in), &out, Options{})
		for _, line := range bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n")) {
			if len(line) > 0 && !json.Valid(line) {
				t.Fatalf("answer %q is no JSON", line)
			}
		}
		_ = Run(bytes.NewReader(in), io.Discard, Options{Explain: true, Warnings: io.Discard})
	})
}
