// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/analysis"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	counts := func(requests, errors, started uint64) analysis.Counts {
		return analysis.Counts{Requests: requests, Errors: errors, Started: started}
	}
	none := map[string]analysis.Counts{}
	for name, want := range map[string]analysis.Look{
		"counts of both": {
			Time: since.Add(5 * time.Second), Step: 1, Weight: 25, CandidatePods: 2,
			Candidate: map[string]analysis.Counts{"s": counts(25, 1, 25)}, Stable: map[string]analysis.Counts{"s": counts(75, 0, 0), "n": counts(3, 0, 3)},
		},
		"by sidecars of which it is not known whose they are": {
			Time: since.Add(5 * time.Second), Weight: 10,
			Candidate: map[string]analysis.Counts{"s": counts(5, 0, 5), "t": counts(4, 0, 4), "n": counts(1, 0, 1)},
			Stable:    map[string]analysis.Counts{"s": counts(45, 0, 0), "t": counts(36, 0, 0), "n": counts(9, 0, 9)},
		},
		"connections that failed": {
			Time: since.Add(5 * time.Second), Weight: 10, CandidatePods: 1, Age: 1500 * time.Millisecond,
			Candidate: map[string]analysis.Counts{"s": {Requests: 10, Unreached: 5}}, Stable: map[string]analysis.Counts{"s": counts(90, 0, 0)},
		},
		"timed at other pods than those that split": {
			Time: since.Add(5500 * time.Millisecond), Weight: 10, Bounds: []float64{0.01, 0.25},
			Candidate: map[string]analysis.Counts{"s": counts(10, 0, 10)}, Stable: map[string]analysis.Counts{"s": counts(90, 0, 90)},
			CandidateServed: map[string]analysis.Served{"n": {Requests: 10, Slower: []uint64{7, 0}}},
			StableServed:    map[string]analysis.Served{"s": {Requests: 89, Slower: []uint64{50, 2}}},
		},
		"before the rollout":     {Time: since.Add(-30 * time.Minute), Candidate: none, Stable: map[string]analysis.Counts{"s": counts(90, 0, 90)}},
		"nothing was asked for":  {Time: since.Add(time.Second), Weight: 10, Candidate: none, Stable: none},
		"nothing could be known": {Time: since.Add(time.Second), Weight: 10, Missing: true, Reason: "not scraped for 40 s", Candidate: none, Stable: none},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Write(&b, Recorded{Look: want}, since); err != nil {
				t.Fatal(err)
			}
			text, ended := strings.CutSuffix(b.String(), "\n")
			l, unknown, err := read([]byte(text))
			if err != nil || unknown != nil || !ended || strings.Contains(text, "\n") {
				t.Fatalf("%s is not one good line: %v, %v", b.String(), err, unknown)
			}
			got, err := l.look()
			if err != nil {
				t.Fatal(err)
			}
			want.Time = moment(want.Time.Sub(since).Seconds())
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s\n(-want +got):\n%s", text, diff)
			}
		})
	}
}

// Who writes looks by hand names each revision's own pods.
func TestCandidatesPodsOfALineByHand(t *testing.T) {
	for text, want := range map[string]int{
		`"candidate":{"n":{"requests":5},"m":{"requests":5}}`:                                                     2,
		`"candidate":{"n":{"requests":5,"slower":{"0.1":1}},"m":{"requests":5,"slower":{"0.1":1}}}`:               2,
		`"candidate":{"n":{"requests":5,"served":6,"slower":{"0.1":1}},"s":{"requests":5,"served":0}}`:            0,
		`"candidatePods":3.0,"candidate":{"n":{"requests":5,"served":6,"slower":{"0.1":1}},"s":{"requests":5}}`:   3,
		`"candidatePods":0,"candidate":{"n":{"requests":5},"s":{"requests":5}},"stable":{"s":{"requests":90000}}`: 0,
	} {
		l, unknown, err := read([]byte(`{"time":5,"weight":10,"step":0,` + text + `}`))
		if err != nil || unknown != nil {
			t.Fatalf("%s: %v, %v", text, err, unknown)
		}
		look, err := l.look()
		if err != nil || look.CandidatePods != want {
			t.Errorf("%s: %d pods, %v; want %d", text, look.CandidatePods, err, want)
		}
	}
}
