// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"maps"
	"sync"
	"time"
)

// Outcome is what became of one request.
type Outcome struct {
	Kind Kind
	// Class is empty when it succeeded; else the sort of failure: "status-503", "reset", "truncated".
	Class string
	// Version and Pod are what the app said it is; empty when nothing answered.
	Version, Pod string
	// Latency counts from when the request was due.
	Latency time.Duration
	// Detail is the error's text.
	Detail string
}

// Report counts the outcomes since the start. It is printed as one line of JSON each second, and once
// more at the end.
type Report struct {
	At time.Time `json:"at"`
	// Seconds since the start.
	Seconds float64 `json:"seconds"`
	// Final says that no request is outstanding and none will follow.
	Final bool `json:"final"`
	// InFlight = Sent - OK - Failed.
	InFlight int64 `json:"inFlight"`
	Counts
	Kinds map[Kind]KindReport `json:"kinds"`
	// Samples describe the first failures; at most MaxSamples.
	Samples []string `json:"samples,omitempty"`
}

// Counts tally requests.
type Counts struct {
	Sent   int64 `json:"sent"`
	OK     int64 `json:"ok"`
	Failed int64 `json:"failed"`
	// Classes tally failures.
	Classes map[string]int64 `json:"classes,omitempty"`
	// Versions tally answers by the version that gave them; "" holds failures that nothing answered.
	Versions map[string]Tally `json:"versions,omitempty"`
}

// Tally is what one version answered.
type Tally struct {
	OK     int64 `json:"ok"`
	Failed int64 `json:"failed"`
}

// Total is the number of answers, good and bad.
func (t Tally) Total() int64 { return t.OK + t.Failed }

// KindReport is the part of a Report about one kind.
type KindReport struct {
	Counts
	Latency Latency `json:"latency"`
}

// Latency are quantiles in milliseconds, of ok and failed requests alike.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// MaxSamples bounds Report.Samples.
const MaxSamples = 20

// Recorder collects outcomes. It is safe for concurrent use.
type Recorder struct {
	start time.Time

	mu      sync.Mutex
	kinds   map[Kind]*kindRecord
	samples []string
}

type kindRecord struct {
	counts  Counts
	latency histogram
}

// NewRecorder starts counting.
func NewRecorder(start time.Time) *Recorder {
	return &Recorder{start: start, kinds: map[Kind]*kindRecord{}}
}

// Sent counts a request that was started.
func (r *Recorder) Sent(k Kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kind(k).counts.Sent++
}

// Done counts what became of one that was started.
func (r *Recorder) Done(o Outcome, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kind(o.Kind)
	k.latency.add(o.Latency)
	k.counts.add(o)
	if o.Class != "" && len(r.samples) < MaxSamples {
		r.samples = append(r.samples, fmt.Sprintf("%.2fs %s %s version=%q pod=%q %s",
			now.Sub(r.start).Seconds(), o.Kind, o.Class, o.Version, o.Pod, o.Detail))
	}
}

// Report is the state of things now.
func (r *Recorder) Report(now time.Time, final bool) Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := Report{At: now, Seconds: now.Sub(r.start).Seconds(), Final: final, Kinds: map[Kind]KindReport{}}
	for name, k := range r.kinds {
		rep.Kinds[name] = KindReport{Counts: k.counts.clone(), Latency: k.latency.summary()}
		rep.Counts = rep.Counts.Plus(k.counts)
	}
	rep.InFlight = rep.Sent - rep.OK - rep.Failed
	rep.Samples = append(rep.Samples, r.samples...)
	return rep
}

func (r *Recorder) kind(k Kind) *kindRecord {
	if r.kinds[k] == nil {
		r.kinds[k] = &kindRecord{}
	}
	return r.kinds[k]
}

func (c *Counts) add(o Outcome) {
	if c.Versions == nil {
		c.Versions, c.Classes = map[string]Tally{}, map[string]int64{}
	}
	t := c.Versions[o.Version]
	if o.Class == "" {
		c.OK++
		t.OK++
	} else {
		c.Failed++
		t.Failed++
		c.Classes[o.Class]++
	}
	c.Versions[o.Version] = t
}

func (c Counts) clone() Counts {
	c.Classes, c.Versions = maps.Clone(c.Classes), maps.Clone(c.Versions)
	return c
}

// Plus adds up two counts.
func (c Counts) Plus(o Counts) Counts { return c.combine(o, 1) }

// Minus is what was counted after o.
func (c Counts) Minus(o Counts) Counts { return c.combine(o, -1) }

func (c Counts) combine(o Counts, sign int64) Counts {
	sum := Counts{
		Sent: c.Sent + sign*o.Sent, OK: c.OK + sign*o.OK, Failed: c.Failed + sign*o.Failed,
		Classes: map[string]int64{}, Versions: map[string]Tally{},
	}
	maps.Copy(sum.Classes, c.Classes)
	maps.Copy(sum.Versions, c.Versions)
	for class, n := range o.Classes {
		if sum.Classes[class] += sign * n; sum.Classes[class] == 0 {
			delete(sum.Classes, class)
		}
	}
	for version, t := range o.Versions {
		was := sum.Versions[version]
		now := Tally{OK: was.OK + sign*t.OK, Failed: was.Failed + sign*t.Failed}
		if sum.Versions[version] = now; now == (Tally{}) {
			delete(sum.Versions, version)
		}
	}
	return sum
}

func (h *histogram) summary() Latency {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return Latency{P50: ms(h.quantile(0.5)), P90: ms(h.quantile(0.9)), P99: ms(h.quantile(0.99)), Max: ms(h.max)}
}
