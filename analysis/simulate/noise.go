// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/stat/distuv"
)

// Noise is what happens to error rates with no fault of any version: at each look a pod's rate is
// multiplied by Times and raised by Plus. The first maxCandidates pods are the candidate's.
type Noise struct {
	Times, Plus [][]float64 // by look, by pod
}

// Maker makes the noise of one rollout of so many looks, secs seconds apart.
type Maker func(random *rand.Rand, looks, pods int, secs float64) Noise

func quiet(looks, pods int) Noise {
	n := Noise{Times: make([][]float64, looks), Plus: make([][]float64, looks)}
	for t := range looks {
		n.Times[t], n.Plus[t] = make([]float64, pods), make([]float64, pods)
		for k := range pods {
			n.Times[t][k] = 1
		}
	}
	return n
}

// EachLook multiplies every pod's rate anew at every look, with that coefficient of variation.
func EachLook(cv float64) Maker {
	return func(random *rand.Rand, looks, pods int, _ float64) Noise {
		n := quiet(looks, pods)
		g := distuv.Gamma{Alpha: 1 / (cv * cv), Beta: 1 / (cv * cv), Src: random}
		for t := range looks {
			for k := range pods {
				n.Times[t][k] = g.Rand()
			}
		}
		return n
	}
}

// Wandering lets the logarithm of every pod's rate wander, with that deviation and correlation time.
func Wandering(sigma, seconds float64) Maker {
	return func(random *rand.Rand, looks, pods int, secs float64) Noise {
		n := quiet(looks, pods)
		keep := math.Exp(-secs / seconds)
		for k := range pods {
			x := random.NormFloat64()
			for t := range looks {
				n.Times[t][k] = math.Exp(sigma*x - sigma*sigma/2)
				x = keep*x + math.Sqrt(1-keep*keep)*random.NormFloat64()
			}
		}
		return n
	}
}

// Differing gives every pod a rate of its own for good.
func Differing(sigma float64) Maker {
	return func(random *rand.Rand, looks, pods int, _ float64) Noise {
		n := quiet(looks, pods)
		for k := range pods {
			by := math.Exp(sigma*random.NormFloat64() - sigma*sigma/2)
			for t := range looks {
				n.Times[t][k] = by
			}
		}
		return n
	}
}

// Bursts lets every pod fail that share of requests for a while, every so many seconds on average.
func Bursts(share, lasts, every float64) Maker {
	return func(random *rand.Rand, looks, pods int, secs float64) Noise {
		n := quiet(looks, pods)
		for k := range pods {
			for at := random.ExpFloat64() * every; at < float64(looks)*secs; at += random.ExpFloat64() * every {
				n.raise(at, lasts, secs, share, k)
			}
		}
		return n
	}
}

// raise adds to the rate of a pod from a time on.
func (n Noise) raise(at, lasts, secs, by float64, k int) {
	for t := max(int(at/secs), 0); t < len(n.Plus) && float64(t)*secs < at+lasts; t++ {
		overlap := min(at+lasts, float64(t+1)*secs) - max(at, float64(t)*secs)
		n.Plus[t][k] = min(n.Plus[t][k]+by*overlap/secs, 1)
	}
}

// Zone lets a third of all pods fail for five minutes, once in the second half.
func Zone(random *rand.Rand, looks, pods int, secs float64) Noise {
	n := quiet(looks, pods)
	at := (0.5 + random.Float64()/2) * float64(looks) * secs
	for k := range pods {
		if random.IntN(3) == 0 {
			n.raise(at, 300, secs, 1, k)
		}
	}
	return n
}

// Shared multiplies the rate of all pods alike, anew every so many seconds.
func Shared(cv, every float64) Maker {
	return func(random *rand.Rand, looks, pods int, secs float64) Noise {
		n := quiet(looks, pods)
		g := distuv.Gamma{Alpha: 1 / (cv * cv), Beta: 1 / (cv * cv), Src: random}
		by, next := 1.0, 0.0
		for t := range looks {
			if float64(t)*secs >= next {
				by, next = g.Rand(), next+every
			}
			for k := range pods {
				n.Times[t][k] = by
			}
		}
		return n
	}
}

// Outages lets all pods fail that share of requests, n times in the second half (the rollout). Every pod is
// scraped up to offset seconds before the look.
func Outages(share, lasts float64, times int, offset float64) Maker {
	return func(random *rand.Rand, looks, pods int, secs float64) Noise {
		n := quiet(looks, pods)
		late := make([]float64, pods)
		for k := range late {
			late[k] = random.Float64() * offset
		}
		for range times {
			at := (0.5 + random.Float64()/2) * float64(looks) * secs
			for k := range pods {
				n.raise(at+late[k], lasts, secs, share, k)
			}
		}
		return n
	}
}
