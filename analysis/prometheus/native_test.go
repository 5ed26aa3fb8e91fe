// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"

	"github.com/headgate/headgate/analysis"
)

// native is a histogram of a pod as a single series.
func native(t testing.TB, pod, hop, revision string, h *model.SampleHistogram) *model.Sample {
	t.Helper()
	s := element(t, nativeName+"{"+labels+pod+",hg_hop="+hop+",hg_revision="+revision+",le=native}", 0)
	s.Histogram = h
	return s
}

// histogram is one with buckets as (lower, upper], count.
func histogram(buckets ...[3]float64) *model.SampleHistogram {
	var h model.SampleHistogram
	for _, b := range buckets {
		h.Count += model.FloatString(b[2])
		h.Buckets = append(h.Buckets, &model.HistogramBucket{Lower: model.FloatString(b[0]), Upper: model.FloatString(b[1]), Count: model.FloatString(b[2])})
	}
	return &h
}

// exponential puts latencies into the buckets of an exponential histogram of a schema; zero is within zero.
func exponential(schema int, milliseconds []float64) *model.SampleHistogram {
	width := math.Ldexp(1, -schema)
	counts := map[float64]float64{}
	end := func(i float64) float64 { return math.Exp2(i * width) }
	zero := 0.0
	for _, ms := range milliseconds {
		if ms == 0 {
			zero++
			continue
		}
		i := math.Ceil(math.Log2(ms) / width)
		for ms > end(i) {
			i++
		}
		for ms <= end(i-1) {
			i--
		}
		counts[i]++
	}
	buckets := [][3]float64{}
	if zero > 0 {
		buckets = append(buckets, [3]float64{-math.Exp2(-128), math.Exp2(-128), zero})
	}
	for i, n := range counts {
		buckets = append(buckets, [3]float64{end(i - 1), end(i), n})
	}
	return histogram(buckets...)
}

// custom puts latencies into the sidecars' buckets.
func custom(milliseconds []float64) *model.SampleHistogram {
	var buckets [][3]float64
	lower := math.Inf(-1)
	for _, upper := range []float64{1, 2, 3, 5, 7.5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000, 7500, 10000, 30000, math.Inf(1)} {
		n := 0.0
		for _, ms := range milliseconds {
			if lower < ms && ms <= upper {
				n++
			}
		}
		if n > 0 { // an answer leaves out the others
			buckets = append(buckets, [3]float64{lower, upper, n})
		}
		lower = upper
	}
	return histogram(buckets...)
}

// classic is a histogram as series of buckets.
func classic(t testing.TB, pod, hop, revision string, milliseconds []float64) (out model.Vector) {
	t.Helper()
	out = append(out, element(t, bucket(pod, hop, revision, all), float64(len(milliseconds))))
	for _, seconds := range latencyBounds() {
		n := 0.0
		for _, ms := range milliseconds {
			if ms <= seconds*1000 {
				n++
			}
		}
		out = append(out, element(t, bucket(pod, hop, revision, boundLabel(seconds)), n))
	}
	return out
}

// counters are those of a histogram, by bound.
func counters(t *testing.T, h *model.SampleHistogram) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for _, s := range parse(model.Vector{native(t, "a", "local", "old", h)}).samples {
		want := series{source: source{web, "a"}, Name: latencyName, Hop: hopLocal, Port: "8080", Revision: "old", Code: s.Code}
		if _, twice := out[s.Code]; twice || s.series != want {
			t.Errorf("counter %+v, want once %+v", s.series, want)
		}
		out[s.Code] = s.Value
	}
	return out
}

func TestNativeHistogramsBecomeBuckets(t *testing.T) {
	one, five, nine := math.Exp2(0.125), math.Exp2(2.5), math.Exp2(3.25)
	tests := map[string]struct {
		histogram *model.SampleHistogram
		want      map[string]float64
	}{
		"custom buckets, at the sidecars' bounds": {
			histogram([3]float64{math.Inf(-1), 1, 5}, [3]float64{7.5, 10, 2}, [3]float64{75, 100, 3}, [3]float64{100, 150, 1}, [3]float64{30000, math.Inf(1), 4}),
			map[string]float64{"10": 7, "20": 7, "50": 7, "100": 10, "200": 11, "300": 11, "500": 11, "1000": 11, "2000": 11, "5000": 11, all: 15},
		},
		"a bound that a sidecar of another version has not": {
			histogram([3]float64{5, 7.5, 1}, [3]float64{7.5, 15, 2}, [3]float64{100, 1000, 1}),
			map[string]float64{"20": 3, "50": 3, "100": 3, "1000": 4, "2000": 4, "5000": 4, all: 4},
		},
		"exponential buckets, at powers of two": {
			histogram([3]float64{-math.Exp2(-128), math.Exp2(-128), 1}, [3]float64{8, nine, 2}, [3]float64{nine, 16, 3}, [3]float64{256, 2 * math.Exp2(7.5), 4}),
			map[string]float64{"8": 1, "16": 6, "32": 6, "64": 6, "128": 6, "256": 6, "512": 10, "1024": 10, "2048": 10, "4096": 10, all: 10},
		},
		"exponential buckets without a slow request": {
			histogram([3]float64{1, one, 2}, [3]float64{4, five, 1}),
			map[string]float64{"8": 3, "16": 3, "32": 3, "64": 3, "128": 3, "256": 3, "512": 3, "1024": 3, "2048": 3, "4096": 3, all: 3},
		},
		"as wide as a factor of two": {
			histogram([3]float64{1, 2, 2}, [3]float64{8, 16, 1}),
			map[string]float64{"8": 2, "16": 3, "32": 3, "64": 3, "128": 3, "256": 3, "512": 3, "1024": 3, "2048": 3, "4096": 3, all: 3},
		},
		"wider than that: only where no bucket lies across": {
			histogram([3]float64{4, 16, 2}, [3]float64{64, 256, 1}),
			map[string]float64{"16": 2, "32": 2, "64": 2, "256": 3, "512": 3, "1024": 3, "2048": 3, "4096": 3, all: 3},
		},
		"of either kind where all requests were fast": {
			histogram([3]float64{1, 2, 7}),
			map[string]float64{"10": 7, "20": 7, "50": 7, "100": 7, "200": 7, "300": 7, "500": 7, "1000": 7, "2000": 7, "5000": 7,
				"8": 7, "16": 7, "32": 7, "64": 7, "128": 7, "256": 7, "512": 7, "1024": 7, "2048": 7, "4096": 7, all: 7},
		},
		"null is no bucket": {&model.SampleHistogram{Count: 1, Buckets: model.HistogramBuckets{nil}}, map[string]float64{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, counters(t, tc.histogram)); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
		})
	}
	other := native(t, "a", "local", "old", histogram([3]float64{1, 2, 7}))
	other.Metric[model.MetricNameLabel] = requestsName
	if got := parse(model.Vector{other}).samples; len(got) != 0 {
		t.Errorf("a counter that is a histogram: %v", got)
	}
}

// times are latencies of n requests, over several orders of magnitude, some of them at bounds.
func times(random *rand.Rand, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		switch random.IntN(4) {
		case 0:
			out[i] = float64(random.IntN(3))
		case 1:
			out[i] = math.Exp2(float64(random.IntN(14)))
		default:
			out[i] = math.Round(math.Exp(random.Float64() * 9.5))
		}
	}
	return out
}

// Whatever resolution a histogram has, and however often it loses half of it, its counters are what was counted.
func TestResolutionChangesNoCounter(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		observed := times(random, 1+random.IntN(50))
		for schema := 8; schema >= 0; schema-- {
			got := counters(t, exponential(schema, observed))
			for _, seconds := range exponentialBounds() {
				want := 0.0
				for _, ms := range observed {
					if ms <= seconds*1000 {
						want++
					}
				}
				if n, ok := got[boundLabel(seconds)]; !ok || n != want {
					t.Fatalf("schema %d: %v (%v) within %s ms, want %v, of %v", schema, n, ok, boundLabel(seconds), want, observed)
				}
			}
		}
	}
}

// A sidecar's histograms give the same looks as series of buckets, converted, and as both.
func TestConvertedHistogramsGiveTheSameLooks(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	type form = func(observed map[[3]string][]float64) model.Vector
	classic := func(observed map[[3]string][]float64) (out model.Vector) {
		for key, ms := range observed {
			out = append(out, classic(t, key[0], key[1], key[2], ms)...)
		}
		return out
	}
	converted := func(observed map[[3]string][]float64) (out model.Vector) {
		for key, ms := range observed {
			out = append(out, native(t, key[0], key[1], key[2], custom(ms)))
		}
		return out
	}
	forms := []form{classic, converted, func(o map[[3]string][]float64) model.Vector { return append(classic(o), converted(o)...) }}
	observed := map[[3]string][]float64{{"a", "local", "old"}: nil, {"b", "local", "old"}: nil, {"b", "in", "old"}: nil, {"c", "in", "new"}: nil}
	memories := make([]memory, len(forms))
	target := shop()
	for i := range 50 {
		at := start.Add(time.Duration(i) * 5 * time.Second)
		for key := range observed {
			if random.IntN(8) == 0 {
				observed[key] = nil // the sidecar restarts
			}
			if i > 2 { // until then nobody has timed anything
				observed[key] = append(observed[key], times(random, random.IntN(20))...)
			}
		}
		var want analysis.Look
		for f, form := range forms {
			a := parse(form(observed))
			next, increments := memories[f].advance(at, a.samples, about([]Target{target}))
			got := looks(at, []Target{target}, a, memories[f], increments, time.Minute)[0]
			if memories[f] = next; f == 0 {
				want = got
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("look %d in form %d (-classic +this):\n%s", i, f, diff)
			}
		}
		if i > 3 && len(want.StableServed) == 0 {
			t.Fatalf("look %d has no latencies", i)
		}
	}
}

// Until one of its requests is slow nobody can say of which kind a histogram is. It must not decide for others.
func TestAFastSidecarHasTheOthersBounds(t *testing.T) {
	slow := exponential(3, []float64{1, 30, 400})
	fast := exponential(0, []float64{0, 0, 0})
	for name, tc := range map[string]struct {
		vector model.Vector
		want   []float64
	}{
		"another pod's":           {model.Vector{native(t, "a", "local", "old", slow), native(t, "c", "local", "new", fast)}, exponentialBounds()},
		"another one of each pod": {model.Vector{native(t, "a", "local", "old", fast), native(t, "a", "in", "old", slow)}, exponentialBounds()},
		"custom ones":             {model.Vector{native(t, "a", "local", "old", custom([]float64{30, 400})), native(t, "c", "local", "new", custom([]float64{1}))}, latencyBounds()},
		"all are fast":            {model.Vector{native(t, "a", "local", "old", custom([]float64{1})), native(t, "c", "local", "new", custom([]float64{2}))}, latencyBounds()},
		"kinds are mixed":         {model.Vector{native(t, "a", "local", "old", custom([]float64{30})), native(t, "c", "local", "new", slow)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := looks(start, []Target{shop()}, parse(tc.vector), memory{}, nil, time.Minute)[0]
			if diff := cmp.Diff(tc.want, got.Bounds); diff != "" {
				t.Errorf("bounds (-want +got):\n%s", diff)
			}
		})
	}
}

// Answers of a real Prometheus (see native_real_test.go, which writes them with -update).
func TestRecordedAnswers(t *testing.T) {
	for name, want := range map[string]analysis.Look{"converted": convertedLook(), "exponential": exponentialLook()} {
		t.Run(name, func(t *testing.T) {
			i := 0
			c := fake(t, Config{}, func(w http.ResponseWriter, _ string) {
				body, err := os.ReadFile(fmt.Sprintf("testdata/%s-%d.json", name, i))
				if err != nil {
					t.Error(err)
				}
				_, _ = w.Write(body) // a client that is gone fails the test anyway
			})
			var got []analysis.Look
			for ; i < 2; i++ {
				l, err := c.Looks(t.Context(), start.Add(time.Duration(i)*5*time.Second), []Target{shop()})
				if err != nil {
					t.Fatal(err)
				}
				got = l
			}
			if diff := cmp.Diff(want, got[0]); diff != "" {
				t.Errorf("look (-want +got):\n%s", diff)
			}
		})
	}
}

// Small histograms are many counters in few bytes.
func TestAnAnswerMayHoldSoManyCounters(t *testing.T) {
	for n, missing := range map[int]string{
		1000: "no sidecar's counters found",
		1500: "there are more request counters than can be read at once",
	} {
		body := strings.Repeat(`{"metric":{},"histogram":[1,{"count":"0","sum":"0"}]},`, n)
		c := fake(t, Config{MaxCounters: MaxNamedCounters}, func(w http.ResponseWriter, _ string) {
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[%s]}}`, strings.TrimSuffix(body, ","))
		})
		if l, _ := c.Looks(t.Context(), start, []Target{shop()}); l[0].Reason != missing {
			t.Errorf("%d histograms: %q, want %q", n, l[0].Reason, missing)
		}
	}
}

// convertedLook is the second look at the converted histograms.
func convertedLook() analysis.Look {
	return analysis.Look{
		Time: start.Add(5 * time.Second), Weight: 10, Bounds: latencyBounds(),
		Candidate: map[string]analysis.Counts{}, Stable: map[string]analysis.Counts{"a": {Requests: 7}},
		CandidateServed: map[string]analysis.Served{},
		StableServed:    map[string]analysis.Served{"a": {Requests: 7, Slower: []uint64{5, 4, 4, 3, 2, 2, 2, 2, 1, 1}}},
	}
}

// exponentialLook is the second look at the exponential histogram.
func exponentialLook() analysis.Look {
	return analysis.Look{
		Time: start.Add(5 * time.Second), Weight: 10, Bounds: exponentialBounds(),
		Candidate: map[string]analysis.Counts{}, Stable: map[string]analysis.Counts{},
		CandidateServed: map[string]analysis.Served{},
		StableServed:    map[string]analysis.Served{"a": {Requests: 11, Slower: []uint64{8, 6, 5, 4, 4, 3, 3, 2, 2, 1}}},
	}
}

// BenchmarkLook is a look at 100 pods, from when its answer is there.
func BenchmarkLook(b *testing.B) {
	random := rand.New(rand.NewPCG(5, 6))
	var buckets, converted, wide model.Vector
	for i := range 100 {
		pod := fmt.Sprint("web-", i)
		var others model.Vector
		for _, class := range []string{"2", "4", "5"} {
			others = append(others, element(b, requests(pod, "local", "old", class), 7), element(b, requests(pod, "peer", "new", class), 7))
		}
		buckets, converted, wide = append(buckets, others...), append(converted, others...), append(wide, others...)
		for _, hop := range []string{"local", "in"} {
			ms := times(random, 200)
			buckets = append(buckets, classic(b, pod, hop, "old", ms)...)
			converted = append(converted, native(b, pod, hop, "old", custom(ms)))
			wide = append(wide, native(b, pod, hop, "old", exponential(3, ms)))
		}
	}
	for name, vector := range map[string]model.Vector{"buckets": buckets, "converted": converted, "exponential": wide} {
		b.Run(name, func(b *testing.B) {
			var m memory
			targets := []Target{shop()}
			for b.Loop() {
				a := parse(vector)
				next, increments := m.advance(start, a.samples, about(targets))
				looks(start, targets, a, m, increments, time.Minute)
				m = next
			}
		})
	}
}
