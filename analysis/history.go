// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"cmp"
	"math"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat/distuv"
)

const (
	// maxHistory is how many minutes before the rollout are kept.
	maxHistory = 30
	// maxTracked is how many latency bounds the history is kept for.
	maxTracked = 8
	// phiBlocks is how many minutes make the longer of the two blocks for phi.
	phiBlocks = 5
)

// History is what stable's pods counted before the rollout, minute by minute. It ends in a Baseline for
// each rate and is dropped then.
type History struct {
	// Bounds are the latencies that Slower counts by, in seconds.
	Bounds []float64 `json:"bounds,omitempty"`
	Blocks []Block   `json:"blocks,omitempty"`
	// Open is the minute that is not over yet, Age how long it has been open.
	Open Block         `json:"open"`
	Age  time.Duration `json:"age"`
}

// Block is what stable's pods counted in a minute, by slot of the table.
type Block struct {
	Requests [maxPods]float64   `json:"requests"`
	Errors   [maxPods]float64   `json:"errors"`
	Served   [maxPods]float64   `json:"served"`
	Slower   [][maxPods]float64 `json:"slower,omitempty"`
}

// rows are all counts of a block.
func (b *Block) rows() []*[maxPods]float64 {
	rows := []*[maxPods]float64{&b.Requests, &b.Errors, &b.Served}
	for i := range b.Slower {
		rows = append(rows, &b.Slower[i])
	}
	return rows
}

// errorBlock and slowerBlock are a block as samples of one rate.
func (b *Block) errorBlock() sample {
	var s sample
	for k := range s {
		s[k] = PodCount{b.Requests[k], b.Errors[k]}
	}
	return s
}

func (b *Block) slowerBlock(bound int) sample {
	var s sample
	if bound >= len(b.Slower) {
		return s
	}
	for k := range s {
		s[k] = PodCount{b.Served[k], b.Slower[bound][k]}
	}
	return s
}

// follow takes in a look before the rollout. bounds are the latencies that may be worth judging; the first
// that are any are kept.
func (h *History) follow(pods *Pods, l Look, bounds []float64, dt time.Duration) {
	if len(h.Bounds) == 0 {
		h.Bounds = bounds
	}
	if len(h.Open.Slower) != len(h.Bounds) {
		h.Open.Slower = make([][maxPods]float64, len(h.Bounds))
	}
	for k := range pods {
		c, served := l.Stable[pods[k].Name], l.StableServed[pods[k].Name]
		h.Open.Requests[k] += float64(min(c.Requests, maxCount))
		h.Open.Errors[k] += float64(min(c.Errors, c.Requests, maxCount))
		if len(served.Slower) < len(l.Bounds) {
			continue
		}
		h.Open.Served[k] += float64(min(served.Requests, maxCount))
		for i, bound := range h.Bounds {
			if at := slices.Index(l.Bounds, bound); at >= 0 {
				h.Open.Slower[i][k] += float64(min(served.Slower[at], served.Requests, maxCount))
			}
		}
	}
	if h.Age += dt; h.Age < minute-dt/2 {
		return
	}
	if len(h.Blocks) == maxHistory {
		h.Blocks = h.Blocks[1:]
	}
	h.Blocks, h.Open, h.Age = append(h.Blocks, h.Open), Block{}, 0
}

// clone shares no memory with h.
func (h *History) clone() *History {
	if h == nil {
		return nil
	}
	out := *h
	out.Bounds, out.Blocks = slices.Clone(h.Bounds), slices.Clone(h.Blocks)
	out.Open.Slower = slices.Clone(h.Open.Slower)
	for _, row := range out.Open.rows() {
		for k := range row {
			row[k] = min(max(finite(row[k]), 0), maxCount)
		}
	}
	out.Bounds = out.Bounds[:min(len(out.Bounds), maxTracked)]
	out.Blocks = out.Blocks[max(len(out.Blocks)-maxHistory, 0):]
	out.Age = min(max(out.Age, 0), maxDuration)
	return &out
}

// errorBlocks and slowerBlocks are the minutes of one rate in which there were requests.
func (h *History) errorBlocks() []sample {
	var out []sample
	for i := range h.Minutes() {
		out = h.Blocks[i].errorBlock().appendTo(out)
	}
	return out
}

func (h *History) slowerBlocks(bound float64) []sample {
	var out []sample
	for i := range h.Minutes() {
		if at := slices.Index(h.Bounds, bound); at >= 0 {
			out = h.Blocks[i].slowerBlock(at).appendTo(out)
		}
	}
	return out
}

func (s sample) appendTo(blocks []sample) []sample {
	s.clean()
	if slices.ContainsFunc(s[:], func(pod PodCount) bool { return pod[0] > 0 }) {
		return append(blocks, s)
	}
	return blocks
}

// Minutes is how many minutes before the rollout are known, 0 to 30; nil knows none.
func (h *History) Minutes() int {
	if h == nil {
		return 0
	}
	return len(h.Blocks)
}

// Baseline is what the history says about one rate of stable. The zero value says nothing: no
// tempering by history, and OUTLIER is told to expect outliers half of the time.
type Baseline struct {
	// Minutes is how long the history is.
	Minutes int `json:"minutes,omitempty"`
	// Phi is the dispersion between pods, over blocks of one and of five minutes the larger; 0 means 1.
	Phi float64 `json:"phi,omitempty"`
	// Sigma is the lasting difference between pods: the deviation of the logarithm of their rates.
	Sigma float64 `json:"sigma,omitempty"`
	// Outliers are the shares of minutes in which a group of stable's pods looks like an outlier, as
	// often as a candidate of that many pods would (groupSizes): after a minute without, and after one
	// with an outlier.
	Outliers [len(groupSizes)][2]float64 `json:"outliers"`
}

// baseline of a rate from its history, in which so many pods were told apart.
func baseline(blocks []sample, pods int, margin Margin, stable float64) Baseline {
	if pods < 2 {
		return Baseline{Minutes: len(blocks), Phi: overTime(blocks), Outliers: lonely()}
	}
	inOrder(blocks)
	all := total(blocks)
	b := Baseline{Minutes: len(blocks), Phi: max(between(blocks, 1), between(blocks, phiBlocks)), Sigma: lasting(&all, pods)}
	for i, k := range groupSizes {
		m := margin.inflated(inflation(b.Sigma, float64(k), stable))
		b.Outliers[i] = calibrate(blocks, pods, k, m)
	}
	return b
}

// total is the sum of all blocks.
func total(blocks []sample) (all sample) {
	for i := range blocks {
		all.plus(&blocks[i])
	}
	return all
}

// inOrder sorts the pods in all blocks by what they counted, so that which of them make a group does
// not depend on their names.
func inOrder(blocks []sample) {
	all := total(blocks)
	order := make([]int, maxPods)
	for k := range order {
		order[k] = k
	}
	slices.SortStableFunc(order, func(a, b int) int {
		by := compareCounts(all[a], all[b])
		for i := 0; by == 0 && i < len(blocks); i++ {
			by = compareCounts(blocks[i][a], blocks[i][b])
		}
		return by
	})
	for i := range blocks {
		old := blocks[i]
		for k, from := range order {
			blocks[i][k] = old[from]
		}
	}
}

// compareCounts puts pods with more requests first, then those with fewer events.
func compareCounts(a, b PodCount) int {
	return cmp.Or(cmp.Compare(b[0], a[0]), cmp.Compare(a[1], b[1]))
}

// between is phi over blocks of n minutes.
func between(blocks []sample, n int) float64 {
	var found, expected float64
	for len(blocks) >= n {
		sum := blocks[0]
		for i := 1; i < n; i++ {
			sum.plus(&blocks[i])
		}
		f, e := dispersion(&sum)
		found, expected, blocks = found+f, expected+e, blocks[n:]
	}
	return ratio(found, expected)
}

// lasting is sigma: what the dispersion over the whole history has beyond chance (its 95 % point), per
// event. A difference that lasts grows with the events, one that comes and goes does not.
func lasting(all *sample, pods int) float64 {
	found, expected := dispersion(all)
	events := 0.0
	for k := range all {
		events += all[k][1]
	}
	if !(events > 0) {
		return 0
	}
	dof := float64(pods - 1)
	byChance := distuv.ChiSquared{K: dof}.Quantile(0.95) / dof
	v := max(0, ratio(found, expected)/byChance-1) / (events / float64(pods))
	return finite(math.Sqrt(math.Log1p(v)))
}

// overTime is the dispersion of a single pod from minute to minute: an upper bound for what another pod
// of the same version would differ by, because it holds what both would share.
func overTime(blocks []sample) float64 {
	return max(varianceToMean(blocks, 1), varianceToMean(blocks, phiBlocks))
}

func varianceToMean(blocks []sample, n int) float64 {
	count := len(blocks) / n
	if count < 2 {
		return 1
	}
	sums := make([]PodCount, count)
	var all PodCount
	for i := range count * n {
		for _, pod := range blocks[i] {
			sums[i/n][0] += pod[0]
			sums[i/n][1] += pod[1]
			all[0] += pod[0]
			all[1] += pod[1]
		}
	}
	p := all[1] / max(all[0], 1)
	var found, expected float64
	for _, s := range sums {
		mean := s[0] * p
		found += (s[1] - mean) * (s[1] - mean)
		expected += mean * (1 - p)
	}
	return ratio(found, expected*(1-1/float64(count)))
}
