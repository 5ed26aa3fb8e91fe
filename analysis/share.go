// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"
	"slices"
)

const (
	// shareLooks is the longest window over which the candidate's share is taken.
	shareLooks = 60
	// shareEnough is how many requests make a window long enough: the share is then known to about
	// two points at a weight of 25 percent.
	shareEnough = 400
	// sharePrior is how many requests the nominal weight counts for.
	sharePrior = 20
)

// Window remembers the requests of both arms at the last looks at the same weight.
type Window struct {
	// Len is how many of Requests are in use, Next where the next look goes.
	Len  int `json:"len"`
	Next int `json:"next"`
	// Requests are candidate's and stable's, a ring.
	Requests [shareLooks][2]uint64 `json:"requests"`
}

func (w *Window) add(candidate, stable uint64) {
	w.Requests[w.Next] = [2]uint64{candidate, stable}
	w.Next = (w.Next + 1) % shareLooks
	w.Len = min(w.Len+1, shareLooks)
}

// clean makes a window that came from outside usable.
func (w *Window) clean() {
	if w.Len < 0 || w.Len > shareLooks || w.Next < 0 || w.Next >= shareLooks {
		*w = Window{}
	}
}

// recent is what both arms had in the shortest window that holds enough.
func (w *Window) recent() (candidate, stable float64) {
	for i := range w.Len {
		if candidate+stable >= shareEnough && (i == 1 || i == 4 || i == 12) {
			break
		}
		at := w.Requests[(w.Next-1-i+2*shareLooks)%shareLooks]
		candidate += float64(at[0])
		stable += float64(at[1])
	}
	return candidate, stable
}

// share is the candidate's share of requests: what was counted recently, drawn a little towards the nominal
// weight. Always strictly between 0 and 1.
//
// The share of one look alone says nothing where a look holds one request; the weight alone is wrong
// where the real split differs from it (retries, sticky routes), and harmless candidates would fail.
func (w *Window) share(weight float64) float64 {
	c, s := w.recent()
	return inside((c + sharePrior*weight) / (c + s + sharePrior))
}

// alone says that the candidate had requests recently and stable had none. There is nothing to compare with then, and
// only the weight's part in the share makes it look otherwise.
func (w *Window) alone() bool {
	c, s := w.recent()
	return c > 0 && s <= 0
}

// Stratum is what both arms counted of a user's rate since they were compared last, as in Mantel and Haenszel (1959). The
// zero value is one without looks.
//
// What a user counts need not follow the weight, nor come at the same time in both arms: a candidate with half of the
// requests may have a hundredth of the orders, and stable all of its own in the look after. No share that was estimated
// from other looks is then right. That of the looks themselves always is: given how many each arm counted, which of them
// are events is by chance. So looks are put together until both arms have something, and are compared as one. When that
// is so does not depend on the events, so the e-values stay valid.
type Stratum struct {
	Tally
	// Looks is how many are in it in which something was counted, 0 to shareLooks.
	Looks int `json:"looks,omitempty"`
}

// add takes in a look, and returns what is compared now, with the candidate's share of it: nothing as long as an arm
// counted nothing. What one arm had for shareLooks, and the other nothing, is compared with nothing.
func (p *Stratum) add(x arms) (compared arms, pi float64) {
	p.keep(x)
	compared = p.arms()
	if compared.nc > 0 && compared.ns > 0 {
		*p = Stratum{}
		return compared, inside(compared.nc / (compared.nc + compared.ns))
	}
	if p.Looks >= shareLooks {
		*p = Stratum{}
	}
	return arms{}, 0.5
}

// keep takes in a look without comparing anything yet.
func (p *Stratum) keep(x arms) {
	if x.nc > 0 || x.ns > 0 {
		p.Tally.add(x)
		p.Looks = min(p.Looks+1, shareLooks)
	}
}

// clean makes a stratum that came from outside usable.
func (p *Stratum) clean() {
	if p.Looks < 0 || p.Looks > shareLooks || p.CandidateEvents > p.CandidateRequests || p.StableEvents > p.StableRequests {
		*p = Stratum{}
	}
}

// inside keeps a share where its logarithm and its odds are finite.
func inside(share float64) float64 {
	return min(max(finite(share), 1e-9), 1-1e-9)
}

const (
	// splitThreshold is 5 standard deviations, one-sided.
	splitThreshold = 3.5e6
	// splitSettle is how many looks after a change of weight are not used: 15 s at 5 s.
	splitSettle = 3
)

// splitBets are the shares, in parts of half the weight, that the check bets on.
var splitBets = [...]float64{0.02, 0.2, 0.5}

// Split is the e-process against "the candidate completes at least half of its weight".
//
// Each value is floored at 1, so that a split that worked for an hour and then breaks is seen as fast
// as one that never worked. A process that starts anew at every look may cross by chance once per
// splitThreshold looks; in an hour of looks that is 1 in 4,800 at most.
type Split [len(splitBets)]float64

func (p *Split) update(a arms, weight float64) {
	half := weight / 2
	limit := math.Log(splitThreshold) / (minLooksToFail - 0.5)
	for i, bet := range splitBets {
		l := a.nc*math.Log(bet) + a.ns*math.Log((1-bet*half)/(1-half))
		p[i] = min(max(p[i]*math.Exp(min(l, limit)), 1), splitThreshold*float64(len(splitBets)))
	}
}

func (p *Split) clean() {
	for i := range p {
		p[i] = max(finite(p[i]), 1)
	}
}

// fineSplit is one against which nothing speaks.
func fineSplit() (p Split) {
	p.clean()
	return p
}

func (p *Split) broken() bool {
	return mean(p[:]) >= splitThreshold
}

// fine says that nothing speaks against the split. When it broke is best guessed as when it was fine last (Page 1954).
func (p *Split) fine() bool { return slices.Max(p[:]) <= 1 }

func mean(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	var sum float64
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}
