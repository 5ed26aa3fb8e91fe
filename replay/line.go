// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	kjson "sigs.k8s.io/json"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/api/v1alpha1"
)

// line is a look as it is written. Fields that are not known are left aside, so that looks may carry more, and named by a
// warning, since one may be a misspelling.
// Whole numbers may be written as 10.0 or 1e3, as many programs do.
type line struct {
	Time    *float64 `json:"time"`
	Weight  float64  `json:"weight"`
	Step    float64  `json:"step"`
	Missing bool     `json:"missing,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	// Since is when the step's weight came into force, in seconds like Time; nil: nobody says. The step begins anew when it changes.
	Since *float64 `json:"since,omitempty"`
	// Paused says that the rollout waits for its user: the time is none of the step's.
	Paused bool `json:"paused,omitempty"`
	// Waiting says that the next step, or this one again, has begun and waits until its own weight is in force.
	Waiting bool `json:"waiting,omitempty"`
	// Judged is how many seconds of the rollout's time the steps before have used up; nil: what the lines before say.
	Judged *float64 `json:"judged,omitempty"`
	// Rollout is what the looks are of, from this line on.
	Rollout *Rollout `json:"rollout,omitempty"`
	// CandidatePods is how many of the candidate's pods get requests; 0: as many as answered. nil: those of Candidate or, where a pod's Served
	// says that they are others than those that answered, as many as answered.
	CandidatePods *float64 `json:"candidatePods,omitempty"`
	// Age is how many seconds before Time the newest counts were taken.
	Age       float64        `json:"age,omitempty"`
	Candidate map[string]pod `json:"candidate,omitzero"`
	Stable    map[string]pod `json:"stable,omitzero"`
}

// Rollout is what looks are of, as far as the judge has to know it. The zero value says nothing.
type Rollout struct {
	// Stable and Candidate name the revisions in sentences.
	Stable    string `json:"stable,omitempty"`
	Candidate string `json:"candidate,omitempty"`
	// Replicas is N when it began, Autoscaled says that an autoscaler had the workload: it goes without the steps that few pods
	// can't carry.
	Replicas   int32 `json:"replicas,omitempty"`
	Autoscaled bool  `json:"autoscaled,omitempty"`
	// Policy is what it was judged by, without metrics; nil: not known. Metrics is how many of its own metrics it was judged by,
	// too.
	Policy  *v1alpha1.RolloutPolicySpec `json:"policy,omitempty"`
	Metrics int                         `json:"metrics,omitempty"`
}

// Recorded is a look, and what was known at the time.
type Recorded struct {
	analysis.Look
	// Waiting and JudgedFor are those of the record (v1alpha1.WeightRecord).
	Waiting   bool
	JudgedFor time.Duration
	// Rollout is what the looks from this one on are of; nil: as before.
	Rollout *Rollout
}

// pod is what one pod counted.
type pod struct {
	Requests *float64 `json:"requests"` // nil: it was forgotten, which is not the same as none
	Errors   float64  `json:"errors"`
	Started  float64  `json:"started,omitempty"`
	// Unreached are connections to the revision's other pods that failed. Older lines have them among Errors.
	Unreached float64 `json:"unreached,omitempty"`
	// Served is of how many requests Slower counts; absent: of Requests. They differ where a request is counted at the
	// pod that it came to, and timed at the one that answered it.
	Served *float64           `json:"served,omitempty"`
	Slower map[string]float64 `json:"slower,omitempty"`
}

// format is what a line must be, for error messages and help.
const format = `{"time":5,"weight":10,"step":0,"candidate":{"pod-a":{"requests":100,"errors":1,"slower":{"0.1":9,"0.5":0}}},"stable":{"pod-b":{"requests":900,"errors":2,"slower":{"0.1":80,"0.5":1}}}}, or {"time":5,"weight":10,"step":0,"missing":true}`

// read reads a line, and says which fields of it are not known.
func read(text []byte) (l line, unknown []string, err error) {
	strict, err := kjson.UnmarshalStrict(text, &l)
	if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) && wrong.Field != "" {
		if number, is := strings.CutPrefix(wrong.Value, "number "); is {
			return l, nil, fmt.Errorf("%s: expected %s, and %s is none or too large", wrong.Field, cmp.Or(kinds[wrong.Type.Kind()], "another kind of value"), number)
		}
		return l, nil, fmt.Errorf("%s: expected %s, not %s", wrong.Field, cmp.Or(kinds[wrong.Type.Kind()], "another kind of value"), wrong.Value)
	}
	if err != nil {
		reason := strings.TrimPrefix(err.Error(), "json: ")
		if errors.As(err, new(*json.UnmarshalTypeError)) {
			reason = "this is another kind of JSON value"
		}
		return l, nil, fmt.Errorf("%s; expected one JSON object: %s", reason, format)
	}
	for _, e := range strict {
		field := kjson.FieldError(nil)
		if !errors.As(e, &field) || !strings.HasPrefix(e.Error(), "unknown field") {
			return l, nil, fmt.Errorf("%w; expected each field once", e)
		}
		unknown = append(unknown, field.FieldPath())
	}
	return l, unknown, l.check()
}

// kinds are what values of JSON are called, by what they are read into.
var kinds = map[reflect.Kind]string{
	reflect.Float64: "a number", reflect.Int: "a whole number", reflect.Int32: "a whole number", reflect.Slice: "a list", reflect.Bool: "true or false", reflect.String: "a string", reflect.Map: "an object", reflect.Struct: "an object",
}

// look is what the judge is given.
func (l line) look() (analysis.Look, error) {
	look := analysis.Look{
		Time: moment(*l.Time), Step: int(l.Step), Weight: int(l.Weight), Paused: l.Paused, Missing: l.Missing, Reason: l.Reason,
		Candidate: map[string]analysis.Counts{}, Stable: map[string]analysis.Counts{},
	}
	if l.Since != nil {
		look.Since = moment(*l.Since)
	}
	if l.Missing {
		return look, nil
	}
	bounds, err := l.bounds()
	if err != nil {
		return analysis.Look{}, err
	}
	if look.Bounds = slices.Sorted(maps.Keys(bounds)); len(bounds) > 0 {
		look.CandidateServed, look.StableServed = map[string]analysis.Served{}, map[string]analysis.Served{}
	}
	for name, p := range l.Candidate {
		p.count(look.Candidate, name)
		p.serve(look.CandidateServed, name, look.Bounds)
	}
	for name, p := range l.Stable {
		p.count(look.Stable, name)
		p.serve(look.StableServed, name, look.Bounds)
	}
	look.CandidatePods = l.candidatePods()
	look.Age = time.Duration(l.Age * float64(time.Second))
	return look, nil
}

// candidatePods is how many pods the candidate has; 0: as many as answered.
func (l line) candidatePods() int {
	if l.CandidatePods != nil {
		return int(*l.CandidatePods)
	}
	for _, p := range l.Candidate {
		if p.Served != nil { // then those of Candidate may be stable's
			return 0
		}
	}
	return len(l.Candidate)
}

// Write writes a look as a line that Run reads. Time is counted from since. The users' metrics are left out.
func Write(w io.Writer, l Recorded, since time.Time) error {
	seconds := func(t time.Time) *float64 {
		s := t.Sub(since).Seconds()
		return &s
	}
	out := line{
		Time: seconds(l.Time), Weight: float64(l.Weight), Step: float64(l.Step), Missing: l.Missing, Reason: l.Reason,
		Paused: l.Paused, Waiting: l.Waiting, Rollout: l.Rollout,
	}
	if !l.Since.IsZero() {
		out.Since = seconds(l.Since)
	}
	if judged := l.JudgedFor.Seconds(); l.Weight > 0 {
		out.Judged = &judged
	}
	if !l.Missing {
		// Pods are those whose sidecars counted, which also stable's do for the candidate, so this does not go without saying.
		candidatePods := float64(l.CandidatePods)
		out.CandidatePods = &candidatePods
		out.Age = l.Age.Seconds()
		out.Candidate = pods(l.Candidate, l.CandidateServed, l.Bounds)
		out.Stable = pods(l.Stable, l.StableServed, l.Bounds)
	}
	text, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("encoding a look: %w", err)
	}
	if _, err := w.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("writing a look: %w", err)
	}
	return nil
}

// pods are what the pods of a revision counted and answered.
func pods(counts map[string]analysis.Counts, served map[string]analysis.Served, bounds []float64) map[string]pod {
	out := map[string]pod{}
	none := 0.0
	for name, c := range counts {
		requests := float64(c.Requests)
		p := pod{Requests: &requests, Errors: float64(c.Errors), Started: float64(c.Started), Unreached: float64(c.Unreached)}
		if len(bounds) > 0 {
			p.Served = &none
		}
		out[name] = p
	}
	for name, s := range served {
		p, counted := out[name]
		if !counted {
			p.Requests = &none
		}
		n := float64(s.Requests)
		p.Served, p.Slower = &n, map[string]float64{}
		for i, slower := range s.Slower {
			p.Slower[strconv.FormatFloat(bounds[i], 'g', -1, 64)] = float64(slower)
		}
		out[name] = p
	}
	return out
}

// bounds are the latencies by which any pod counts.
func (l line) bounds() (map[float64]bool, error) {
	out := map[float64]bool{}
	for _, pods := range []map[string]pod{l.Candidate, l.Stable} {
		for name, p := range pods {
			own := map[float64]bool{}
			for text := range p.Slower {
				bound, err := strconv.ParseFloat(text, 64)
				if err != nil || !(bound > 0) || math.IsInf(bound, 0) {
					return nil, fmt.Errorf(`pod %q: "slower" has %q; expected seconds above 0, like "0.25"`, name, text)
				}
				if own[bound] {
					return nil, fmt.Errorf(`pod %q: "slower" has %g s twice, in different words; expected each bound once`, name, bound)
				}
				own[bound], out[bound] = true, true
			}
		}
	}
	return out, nil
}

// served is of how many requests Slower counts. Requests is there; see check.
func (p pod) served() float64 {
	if p.Served == nil {
		return *p.Requests
	}
	return *p.Served
}

// count adds what the pod counted; one that only answered has nothing.
func (p pod) count(into map[string]analysis.Counts, name string) {
	c := analysis.Counts{Requests: whole(*p.Requests), Errors: whole(p.Errors), Started: whole(p.Started), Unreached: whole(p.Unreached)}
	if p.Served == nil || c != (analysis.Counts{}) {
		into[name] = c
	}
}

// serve adds the pod's latencies, unless it says that it answered nothing. A pod that counts by fewer bounds than
// others has none, which spoils the look; one without requests has all.
func (p pod) serve(into map[string]analysis.Served, name string, bounds []float64) {
	if len(bounds) == 0 || (p.Served != nil && *p.Served == 0) {
		return
	}
	c := analysis.Served{Requests: whole(p.served())}
	byBound := map[float64]uint64{}
	for text, n := range p.Slower {
		bound, _ := strconv.ParseFloat(text, 64) // checked before
		byBound[bound] = whole(n)
	}
	for _, b := range bounds {
		n, ok := byBound[b]
		if !ok && p.served() > 0 {
			c.Slower = nil
			break
		}
		c.Slower = append(c.Slower, n)
	}
	into[name] = c
}

// whole is a count; more than the judge takes is the most that it does.
func whole(v float64) uint64 {
	return uint64(min(max(v, 0), 1<<53))
}

// moment is a time so many seconds after 1970.
func moment(seconds float64) time.Time {
	full := math.Floor(seconds)
	return time.Unix(int64(full), int64((seconds-full)*1e9)).UTC()
}
