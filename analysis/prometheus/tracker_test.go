// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var web = workload{Namespace: "shop", Workload: "web"}

// counter is a series of a pod of shop/web.
func counter(pod, code string) series {
	return series{source: source{workload: web, Pod: pod}, Name: requestsName, Hop: hopLocal, Port: "8080", Revision: "old", Code: code}
}

// values are samples by pod/class, like "a/2".
type values map[string]float64

func (v values) samples() []sample {
	var out []sample
	for name, value := range v {
		out = append(out, sample{series: counter(name[:1], name[2:]), Value: value})
	}
	return out
}

// track gives the increments of each look; pods in born were created between the looks of that index
// and the one before.
func (m memory) track(looks []values, born map[string]int) []values {
	var out []values
	created := asked{web: {}}
	for pod, at := range born {
		created[web][pod] = start.Add(time.Duration(at)*5*time.Second - 2*time.Second)
	}
	for i, v := range looks {
		var increments []increment
		m, increments = m.advance(start.Add(time.Duration(i)*5*time.Second), v.samples(), created)
		got := values{}
		for _, inc := range increments {
			got[inc.Pod+"/"+inc.Code] = inc.By
		}
		out = append(out, got)
	}
	return out
}

func TestTracker(t *testing.T) {
	nan := math.NaN()
	tests := map[string]struct {
		looks []values
		born  map[string]int
		want  []values
	}{
		"the first look is where counting starts": {
			looks: []values{{"a/2": 100}, {"a/2": 130}},
			want:  []values{{}, {"a/2": 30}},
		},
		"a counter that stands still counts nothing": {
			looks: []values{{"a/2": 100}, {"a/2": 100}, {"a/2": 101}},
			want:  []values{{}, {}, {"a/2": 1}},
		},
		"after a reset all of it counts": {
			looks: []values{{"a/2": 100}, {"a/2": 7}, {"a/2": 9}},
			want:  []values{{}, {"a/2": 7}, {"a/2": 2}},
		},
		"the first error of a known sidecar counts": {
			looks: []values{{"a/2": 100}, {"a/2": 110, "a/5": 3}},
			want:  []values{{}, {"a/2": 10, "a/5": 3}},
		},
		"a pod created since the look before counts from its first request": {
			looks: []values{{"a/2": 100}, {"a/2": 100, "b/2": 12}},
			born:  map[string]int{"b": 1},
			want:  []values{{}, {"b/2": 12}},
		},
		"an older pod, seen for the first time, is where counting starts": {
			looks: []values{{"a/2": 100}, {"a/2": 100, "b/2": 12000}, {"a/2": 100, "b/2": 12003}},
			want:  []values{{}, {}, {"b/2": 3}},
		},
		"a pod that was created before the first look, too": {
			looks: []values{{"b/2": 12}, {"b/2": 13}},
			born:  map[string]int{"b": 0},
			want:  []values{{}, {"b/2": 1}},
		},
		"a counter that is gone counts nothing": {
			looks: []values{{"a/2": 100, "b/2": 50}, {"a/2": 101}},
			want:  []values{{}, {"a/2": 1}},
		},
		"a pod whose scrape failed once goes on where it was": {
			looks: []values{{"a/2": 100, "b/2": 50}, {"a/2": 101}, {"a/2": 102, "b/2": 58}},
			want:  []values{{}, {"a/2": 1}, {"a/2": 1, "b/2": 8}},
		},
		"a hole in one counter does not make its past new": {
			looks: []values{{"a/2": 100, "a/5": 90}, {"a/2": 101}, {"a/2": 102, "a/5": 91}},
			want:  []values{{}, {"a/2": 1}, {"a/2": 1, "a/5": 1}},
		},
		"a counter that was reset and shows up later counts from zero": {
			looks: []values{{"a/2": 100, "a/5": 90}, {"a/2": 3}, {"a/2": 5, "a/5": 1}},
			want:  []values{{}, {"a/2": 3}, {"a/2": 2, "a/5": 1}},
		},
		"NaN is as good as absent": {
			looks: []values{{"a/2": 100}, {"a/2": nan}, {"a/2": 104}},
			want:  []values{{}, {}, {"a/2": 4}},
		},
		"a counter that began as NaN starts at its first number": {
			looks: []values{{"a/2": 100, "a/5": nan}, {"a/2": 100, "a/5": 5000}, {"a/2": 100, "a/5": 5001}},
			want:  []values{{}, {}, {"a/5": 1}},
		},
		"no answer at all, and back": {
			looks: []values{{"a/2": 100}, {}, {}, {"a/2": 160}},
			want:  []values{{}, {}, {}, {"a/2": 60}},
		},
		"infinity and negative values are none": {
			looks: []values{{"a/2": 100}, {"a/2": math.Inf(1)}, {"a/2": -5}, {"a/2": 101}},
			want:  []values{{}, {}, {}, {"a/2": 1}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, memory{}.track(tc.looks, tc.born)); diff != "" {
				t.Errorf("increments (-want +got):\n%s", diff)
			}
		})
	}
}

// times gives the same look again and again.
func (v values) times(n int) []values {
	out := make([]values, n)
	for i := range out {
		out[i] = v
	}
	return out
}

// Behind one address there may be two Prometheuses, which have scraped at different moments, and take turns.
func TestAnswersThatAreOlderThanTheOneBefore(t *testing.T) {
	const lag = 15 * time.Second
	long := func(then ...values) []values { return append(values{"a/2": 1000, "a/5": 10}.times(8), then...) }
	tests := map[string]struct {
		looks []values
		want  []values // of the last looks
	}{
		"what is older counts nothing, and nothing twice": {
			looks: []values{{"a/2": 1000}, {"a/2": 1100}, {"a/2": 1040}, {"a/2": 1200}, {"a/2": 1140}, {"a/2": 1300}},
			want:  []values{{"a/2": 100}, {}, {"a/2": 100}, {}, {"a/2": 100}},
		},
		"what is older than all for long is a reset": {
			looks: long(values{"a/2": 3, "a/5": 1}, values{"a/2": 5, "a/5": 3}),
			want:  []values{{"a/2": 3, "a/5": 1}, {"a/2": 2, "a/5": 2}},
		},
		"what a counter had before a reset is forgotten": { // at a look at which values are marked, too
			looks: append(values{"a/2": 1000}.times(9), values{"a/2": 3}, values{"a/2": 10}, values{"a/2": 20}, values{"a/2": 30}, values{"a/2": 25}, values{"a/2": 40}),
			want:  []values{{"a/2": 3}, {"a/2": 7}, {"a/2": 10}, {"a/2": 10}, {}, {"a/2": 10}},
		},
		"of one counter, and all of the sidecar have": {
			looks: append(long(), values{"a/2": 1100, "a/5": 14}, values{"a/2": 1050, "a/5": 2}),
			want:  []values{{"a/2": 100, "a/5": 4}, {"a/2": 1050, "a/5": 2}},
		},
		"a young counter that stays below is one, too": {
			looks: []values{{"a/2": 100}, {"a/2": 40}, {"a/2": 45}, {"a/2": 50}, {"a/2": 55}, {"a/2": 60}},
			want:  []values{{}, {}, {}, {"a/2": 55}, {"a/2": 5}},
		},
		"and counts what is beyond that where it does not": {
			looks: []values{{"a/2": 100}, {"a/2": 40}, {"a/2": 90}, {"a/2": 130}, {"a/2": 131}},
			want:  []values{{}, {}, {"a/2": 30}, {"a/2": 1}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := memory{lag: lag}.track(tc.looks, nil)
			if diff := cmp.Diff(tc.want, got[len(got)-len(tc.want):]); diff != "" {
				t.Errorf("increments (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPodScrapedTwiceIsCountedOnce(t *testing.T) {
	var m memory
	about := asked{web: nil}
	read := func(first, second float64) float64 {
		var incs []increment
		m, incs = m.advance(start, []sample{{counter("a", "2"), first}, {counter("a", "2"), second}}, about)
		total := 0.0
		for _, i := range incs {
			total += i.By
		}
		return total
	}
	read(100, 98)
	if got := read(105, 110); got != 10 {
		t.Errorf("two scrapes of one counter: %v, want 10", got)
	}
}

func TestAfterALongPauseCountingStartsAgain(t *testing.T) {
	about := asked{web: {"b": start.Add(time.Minute)}}
	m, _ := memory{}.advance(start, values{"a/2": 1}.samples(), about)
	at := start.Add(time.Hour)
	m, incs := m.advance(at, values{"a/2": 5000, "b/2": 70}.samples(), about)
	if len(incs) != 0 {
		t.Errorf("counted an hour in which nobody looked: %v", incs)
	}
	if _, incs = m.advance(at.Add(5*time.Second), values{"a/2": 5001, "b/2": 70}.samples(), about); len(incs) != 1 || incs[0].By != 1 {
		t.Errorf("the look after it: %v", incs)
	}
}

func TestWhatIsLongGoneIsForgotten(t *testing.T) {
	var m memory
	about := asked{web: nil}
	m, _ = m.advance(start, values{"a/2": 1, "b/2": 1}.samples(), about)
	for i := range forgetAfter {
		m, _ = m.advance(start, values{"a/2": float64(i)}.samples(), about)
	}
	if !m.knows(source{web, "b"}) {
		t.Error("forgotten too early")
	}
	if m, _ = m.advance(start, values{"a/2": 99}.samples(), about); m.knows(source{web, "b"}) || len(m.last) != 1 {
		t.Errorf("still remembered: %v", m.last)
	}
	if m, _ = m.advance(start, nil, asked{}); len(m.last) != 0 || len(m.sources) != 0 {
		t.Error("a workload that is not asked for is remembered")
	}
}

// A namespace whose counters and pods have other names at every look is one that wants to fill the memory.
func TestMemoryHasRoomForSoMuch(t *testing.T) {
	evil := workload{Namespace: "evil", Workload: "web"}
	about := asked{web: nil, evil: nil}
	m := memory{room: 20}
	m, _ = m.advance(start, values{"a/2": 100, "b/2": 100}.samples(), about)
	for i := range forgetAfter {
		samples := values{"a/2": 100}.samples() // b can't be scraped for a while
		for n := range 30 {
			s := counter("a", fmt.Sprint(i, n))
			s.workload = evil
			samples = append(samples, sample{s, 1})
			s.Pod = fmt.Sprint(i, n)
			samples = append(samples, sample{s, 1})
		}
		m, _ = m.advance(start, samples, about)
	}
	if got := len(m.last); got > 61+20 {
		t.Errorf("%d counters are remembered, of 61 in the answer and room for 20 more", got)
	}
	if _, incs := m.advance(start, values{"b/2": 107}.samples(), about); len(incs) != 1 || incs[0].By != 7 {
		t.Errorf("another namespace's sidecar, back again, counted %v; want 7", incs)
	}
}

// FuzzTwoPrometheuses lets two answer in turn, of which one has the counters of some looks ago: what is counted is never more than what
// happened, and all of it once the fresher one answers.
func FuzzTwoPrometheuses(f *testing.F) {
	f.Add([]byte{7, 1, 9, 3, 200, 2, 30, 0, 1, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		m := memory{lag: time.Minute}
		values := []float64{100}
		read := func(ago int) float64 {
			at := start.Add(time.Duration(len(values)) * 5 * time.Second)
			value := values[max(len(values)-1-ago, 0)]
			var incs []increment
			m, incs = m.advance(at, []sample{{counter("a", "2"), value}}, asked{web: nil})
			counted := 0.0
			for _, i := range incs {
				counted += i.By
			}
			return counted
		}
		read(0)
		counted := 0.0
		for _, b := range script[:min(len(script), 200)] {
			values = append(values, values[len(values)-1]+float64(b>>3))
			counted += read(int(b % 6))
		}
		values = append(values, values[len(values)-1]+1)
		if counted += read(0); counted != values[len(values)-1]-100 {
			t.Errorf("counted %v of %v", counted, values[len(values)-1]-100)
		}
	})
}

// FuzzTracker drives two counters of one pod through rises, resets and holes, and compares with what
// was really counted: never more than that, and exactly that where nothing is hidden by a hole.
func FuzzTracker(f *testing.F) {
	f.Add([]byte{1, 5, 1, 9, 2, 3, 1, 4})
	f.Add([]byte{0, 0, 3, 200, 1, 7, 2, 1, 2, 1, 3, 3, 1, 1})
	f.Add(binary.BigEndian.AppendUint64(nil, 0x0102030405060708))
	f.Fuzz(func(t *testing.T, script []byte) {
		var m memory
		about := asked{web: nil}
		value, counted, truth, hidden, since := 50.0, 0.0, 0.0, false, 0.0
		m, _ = m.advance(start, []sample{{counter("a", "2"), value}, {counter("a", "3"), 1}}, about)
		for len(script) >= 2 {
			op, n := script[0]%4, float64(script[1])
			script = script[2:]
			present := true
			switch op {
			case 1: // traffic
				value += n
				since += n
			case 2: // the sidecar restarts; what it had not shown is lost
				value, since = n, n
				hidden = hidden || n > 0
			case 3: // a hole
				present = false
			}
			samples := []sample{{counter("a", "3"), 1}}
			if present {
				samples = append(samples, sample{counter("a", "2"), value})
				truth, since = truth+since, 0
			}
			var incs []increment
			m, incs = m.advance(start, samples, about)
			for _, i := range incs {
				if !(i.By > 0) || math.IsInf(i.By, 0) {
					t.Fatalf("increment %v", i.By)
				}
				counted += i.By
			}
		}
		if counted > truth || !hidden && counted != truth {
			t.Fatalf("counted %v of %v (resets: %v)", counted, truth, hidden)
		}
	})
}
