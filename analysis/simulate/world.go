// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/headgate/headgate/analysis"
)

const (
	maxCandidates = 10
	defaultPods   = 10
	// history is how long before the rollout the service is watched at most.
	history = 30 * time.Minute
)

// World is a service and a candidate for it. Times are seconds since the rollout's first look; before
// it they are negative.
type World struct {
	// RPS is the number of requests per second, of both revisions together.
	RPS float64
	// Base is stable's error rate, Worse what the candidate's has beyond it.
	Base  float64
	Worse func(seconds float64, weight int) float64
	// Drift multiplies the rates of both.
	Drift func(seconds float64) float64
	// Pods is how many stable has; default 10. The candidate has one per 10 percent.
	Pods int
	// Noise is what pods do on their own; nil is nothing.
	Noise Maker
	// Split is the true share at a weight, where it is not that of the weight.
	Split func(weight float64) float64

	// Latency says that requests are timed; Slower is the candidate's shape, and Slow that of both.
	Latency bool
	Slower  func(seconds float64, weight int) Shape
	Slow    func(seconds float64) Shape
	// Cold multiplies the latency of a pod's first 30 seconds with requests.
	Cold float64
	// Speed multiplies the latencies of pods, as Noise does error rates; nil is nothing.
	Speed Maker
	// Watched is how long before the rollout the service is watched, up to half an hour; 0 is that. Fresh says that it is not.
	Watched time.Duration
	Fresh   bool
	// Interval is the time between looks; default 5 s.
	Interval time.Duration
}

// Plus is a candidate that fails that share of requests more.
func Plus(share float64) func(float64, int) float64 {
	return func(float64, int) float64 { return share }
}

func (w *World) interval() time.Duration {
	if w.Interval > 0 {
		return w.Interval
	}
	return 5 * time.Second
}

// service is a World in one rollout.
type service struct {
	World
	random *rand.Rand
	noise  Noise
	speed  Noise
	secs   float64
	before int // looks of history
	look   analysis.Look
	names  []string
	born   [maxCandidates]float64 // when a candidate's pod had its first request
	tails  [2]tails               // of the last two shapes
}

// tails remembers what is slow to compute.
type tails struct {
	shape Shape
	of    [10]float64
	known bool
}

func (s *service) tail(shape Shape) *[10]float64 {
	for i := range s.tails {
		if s.tails[i].known && s.tails[i].shape == shape {
			return &s.tails[i].of
		}
	}
	s.tails[1] = s.tails[0]
	s.tails[0] = tails{shape, shape.tail(), true}
	return &s.tails[0].of
}

// start makes a service for a rollout of so many looks.
func (w World) start(seed uint64, looks int) *service {
	s := &service{World: w, random: rand.New(rand.NewPCG(seed, 0x68656164)), secs: w.interval().Seconds()}
	if s.Pods == 0 {
		s.Pods = defaultPods
	}
	if !w.Fresh {
		s.before = int(cmp.Or(w.Watched, history) / w.interval())
	}
	s.noise, s.speed = s.make(w.Noise, looks), s.make(w.Speed, looks)
	for k := range maxCandidates + s.Pods {
		s.names = append(s.names, fmt.Sprintf("pod-%02d", k))
	}
	for k := range s.born {
		s.born[k] = math.Inf(1)
	}
	s.look.Stable, s.look.StableServed = map[string]analysis.Counts{}, map[string]analysis.Served{}
	return s
}

// make is the noise of a rollout and its history. The second half of what is made is the rollout's.
func (s *service) make(by Maker, looks int) Noise {
	if by == nil {
		return Noise{}
	}
	all := max(looks, int(history/s.interval()))
	n := by(s.random, 2*all, maxCandidates+s.Pods, s.secs)
	return Noise{Times: n.Times[all-s.before:], Plus: n.Plus[all-s.before:]}
}

// at is how a pod is hurried or slowed down at a look.
func (s *service) at(t, k int, shape Shape) Shape {
	if i := t + s.before; s.speed.Times != nil && i < len(s.speed.Times) {
		shape.Scale = orOne(shape.Scale) * s.speed.Times[i][k]
	}
	return shape
}

// next is the t-th look, from -before on.
func (s *service) next(t, step, weight int) analysis.Look {
	at := float64(t) * s.secs
	l := &s.look
	l.Time = time.Unix(0, 0).Add(time.Duration(t+s.before+1) * s.interval())
	l.Step, l.Weight = step, weight
	l.Candidate, l.CandidateServed, l.Bounds = map[string]analysis.Counts{}, map[string]analysis.Served{}, nil
	if s.Latency {
		l.Bounds = Bounds
	}
	share := float64(weight) / 100
	if s.Split != nil {
		share = s.Split(share)
	}
	candidates := 0
	if weight > 0 {
		candidates = min(max((weight+9)/10, 1), maxCandidates)
	}
	total := s.RPS * s.secs
	for k := range candidates {
		n := s.poisson(total * share / float64(candidates))
		if n > 0 {
			s.born[k] = min(s.born[k], at)
		}
		l.Candidate[s.names[k]] = analysis.Counts{Requests: n, Errors: s.binomial(n, s.rate(t, k, s.worse(at, weight)))}
		if s.Latency {
			l.CandidateServed[s.names[k]] = s.serve(n, s.at(t, k, s.candidateShape(at, weight, k)), nil)
		}
	}
	for i := range s.Pods {
		k := maxCandidates + i
		n := s.poisson(total * (1 - share) / float64(s.Pods))
		l.Stable[s.names[k]] = analysis.Counts{Requests: n, Errors: s.binomial(n, s.rate(t, k, 0))}
		if s.Latency {
			l.StableServed[s.names[k]] = s.serve(n, s.at(t, k, s.shape(at)), l.StableServed[s.names[k]].Slower)
		}
	}
	return *l
}

// rate is a pod's error rate, extra beyond the service's.
func (s *service) rate(t, k int, extra float64) float64 {
	p := s.Base
	if s.Drift != nil {
		p *= s.Drift(float64(t) * s.secs)
	}
	if i := t + s.before; s.noise.Times != nil && i < len(s.noise.Times) {
		p = p*s.noise.Times[i][k] + s.noise.Plus[i][k]
	}
	return min(max(p+extra, 0), 1)
}

func (s *service) worse(at float64, weight int) float64 {
	if s.Worse == nil {
		return 0
	}
	return s.Worse(at, weight)
}

func (s *service) shape(at float64) Shape {
	if s.Slow == nil {
		return Shape{}
	}
	return s.Slow(at)
}

func (s *service) candidateShape(at float64, weight, k int) Shape {
	shape := s.shape(at)
	if s.Slower != nil {
		shape = s.Slower(at, weight)
	}
	if s.Cold > 0 && at < s.born[k]+30 {
		shape.Scale = orOne(shape.Scale) * s.Cold
	}
	return shape
}

// serve draws how many of n requests were slower than each bound.
func (s *service) serve(n uint64, shape Shape, into []uint64) analysis.Served {
	into = into[:0]
	left, above := n, 1.0
	for _, tail := range s.tail(shape) {
		left = s.binomial(left, tail/max(above, 1e-300))
		above = tail
		into = append(into, left)
	}
	return analysis.Served{Requests: n, Slower: into}
}

func (s *service) poisson(mean float64) uint64 {
	if mean <= 0 {
		return 0
	}
	return uint64(distuv.Poisson{Lambda: mean, Src: s.random}.Rand())
}

func (s *service) binomial(n uint64, p float64) uint64 {
	switch {
	case n == 0 || p <= 0:
		return 0
	case p >= 1:
		return n
	case p > 0.5:
		return n - s.binomial(n, 1-p)
	case float64(n)*p < 10:
		return s.few(n, p)
	}
	return min(uint64(distuv.Binomial{N: float64(n), P: p, Src: s.random}.Rand()), n)
}

// few draws a binomial number that is small, by the gaps between successes.
func (s *service) few(n uint64, p float64) uint64 {
	logs := math.Log1p(-p)
	var hits uint64
	for at := 0.0; ; hits++ {
		at += math.Floor(math.Log(1-s.random.Float64())/logs) + 1
		if at > float64(n) {
			return hits
		}
	}
}
