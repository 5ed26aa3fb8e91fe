// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"math"
	"slices"

	"github.com/prometheus/common/model"
)

// A Prometheus may keep a histogram as one series: with the buckets that sidecars expose (convert_classic_histograms_to_nhcb),
// here called custom, or as an exponential one, whose buckets end at powers of two and at numbers between them. Either is
// unfolded into the counters that the same histogram has where each bucket is a series, and nothing after this knows of it.
//
// Nothing is interpolated: a histogram counts by a bound where no bucket lies across it, and does not where one does.
// When an exponential one has too many buckets it merges neighbours. An estimate would move then, and so would the end of
// the nearest bucket: a counter that falls, or two pods that are not counted by the same bound. Powers of two stay ends of
// buckets until those are wider than a factor of two, so they are what exponential histograms are judged by. From then
// on the bounds across which buckets lie are gone, until the sidecar restarts.
//
// An answer does not say of which kind a histogram is, and leaves out its empty buckets. The ends of the others tell.

// exponentialBounds are for exponential histograms what latencyBounds are for all others.
func exponentialBounds() []float64 {
	return []float64{0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096}
}

// bound is one that requests are counted by.
type bound struct {
	label        string
	milliseconds float64
}

func labelled(seconds []float64) []bound {
	out := make([]bound, len(seconds))
	for i, s := range seconds {
		out[i] = bound{label: boundLabel(s), milliseconds: s * 1000}
	}
	return out
}

// unfolder turns native histograms into counters, by either kind's bounds.
type unfolder struct{ custom, exponential []bound }

func newUnfolder() unfolder {
	return unfolder{custom: labelled(latencyBounds()), exponential: labelled(exponentialBounds())}
}

// unfold appends the counters of a histogram.
func (u unfolder) unfold(samples []sample, s series, h *model.SampleHistogram) []sample {
	if s.Name != nativeName || slices.Contains(h.Buckets, nil) {
		return samples
	}
	s.Name, s.Code = latencyName, all
	samples = append(samples, sample{s, float64(h.Count)})
	custom, exponential := u.kinds(h.Buckets)
	if custom {
		samples = count(samples, s, h.Buckets, u.custom)
	}
	if exponential {
		samples = count(samples, s, h.Buckets, u.exponential)
	}
	return samples
}

// unfolded is about how many counters there are in an answer.
func unfolded(v model.Vector) (n int64) {
	each := int64(len(latencyBounds()) + 1)
	for _, e := range v {
		if n++; e.Histogram != nil {
			n += each - 1
		}
	}
	return n
}

// kinds says of which kinds a histogram may be. Of both only where no request was slower than any bound: then it does
// not matter, and a sidecar that has answered fast so far must not take away the bounds that all others have.
func (u unfolder) kinds(buckets model.HistogramBuckets) (custom, exponential bool) {
	var decimal, irrational, slow bool
	for _, b := range buckets {
		slow = slow || float64(b.Upper) > u.exponential[0].milliseconds
		for _, end := range []float64{float64(b.Lower), float64(b.Upper)} {
			if end == 0 || math.IsInf(end, 0) || isPowerOfTwo(end) {
				continue
			}
			isDecimal := end*1000 == math.Trunc(end*1000)
			decimal = decimal || isDecimal
			irrational = irrational || !isDecimal
		}
	}
	// Of the sidecars' buckets, every one for slow requests has an end that is no power of two.
	return decimal || !irrational && !slow, !decimal
}

func isPowerOfTwo(x float64) bool {
	fraction, _ := math.Frexp(math.Abs(x))
	return fraction == 0.5
}

// count appends a counter for each bound that no bucket lies across.
func count(samples []sample, s series, buckets model.HistogramBuckets, bounds []bound) []sample {
	for _, bound := range bounds {
		within, known := 0.0, true
		for _, b := range buckets {
			switch {
			case float64(b.Upper) <= bound.milliseconds:
				within += float64(b.Count)
			case float64(b.Lower) < bound.milliseconds:
				known = false
			}
		}
		if known {
			s.Code = bound.label
			samples = append(samples, sample{s, within})
		}
	}
	return samples
}
