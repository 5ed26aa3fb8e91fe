// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import "math"

// acceptBets are the candidate's error rates, in parts of the one to be ruled out, that acceptance
// bets on; see acceptBet.
var acceptBets = [...]float64{0.05, 0.2, 0.4, 0.6, 0.8}

// settleLooks is how many looks after a change of weight acceptance ignores: their requests were
// partly split by the weight before, and caches and connections of the candidate are cold.
const settleLooks = 2

// acceptBet is one of acceptBets where the candidate has this share of requests. Where it has most of them, one of stable's errors weighs
// so much that evidence swings from look to look by more than a look may add (acceptLimit): what is cut off there, and counted when it
// swings back, is a loss on average, for a candidate as good as stable too. Closer to the margin it weighs as much as at a half.
func acceptBet(bet, share float64) float64 {
	return 1 - (1-bet)*min((1-share)/share, 1)
}

// acceptCoefficient is the weight of a stable's error in the evidence for the candidate.
func acceptCoefficient(pi, rho, u float64) float64 {
	return math.Log1p(pi / (1 - pi) * rho * (1 - u))
}

// acceptEvidence is the logarithm of the e-value of one look against "the candidate is at least as
// bad as the margin". Its exponential has an expectation of at most 1 there.
func acceptEvidence(x arms, pi float64, m Margin, u float64) float64 {
	return x.ec*math.Log(u) + x.es*acceptCoefficient(pi, m.Ratio, u) + x.nc*m.Excess*(1-u)
}

// acceptVariance is the variance of acceptEvidence where errors are independent.
func acceptVariance(x arms, pi float64, m Margin, u float64) float64 {
	c, s := math.Log(u), acceptCoefficient(pi, m.Ratio, u)
	return x.ec*c*c + x.es*s*s
}

// acceptLimit bounds what one look may add: acceptance needs more than two looks.
func (s Settings) acceptLimit() float64 {
	return math.Log(1/s.Beta) / 2
}

// Acceptance is the state of one metric's acceptance in the current step.
type Acceptance struct {
	// Bets are the e-values of the single bets. Each is 1 at the start of a step.
	Bets [len(acceptBets)]float64 `json:"bets"`
	// Information is the logarithm of the e-value that a candidate exactly as good as stable would be
	// expected to have by now, from the best bet of each look.
	Information float64 `json:"information"`
	// Variance is that of Information by chance.
	Variance float64 `json:"variance,omitempty"`
	// Trend is stable's error rate, smoothed over about 20 looks; kept from step to step.
	Trend float64 `json:"trend"`
}

// restart begins a step.
func (p *Acceptance) restart() {
	for j := range p.Bets {
		p.Bets[j] = 1
	}
	p.Information, p.Variance = 0, 0
}

// maxAcceptance bounds a stored e-value, so that a step that waits for an approval, long since
// accepted, still notices within a few looks that it would not be any more.
const maxAcceptance = 1e4

// update takes in one look; m is the margin to be ruled out, phi by how much evidence is tempered. weight is the candidate's nominal
// share: where stable has no requests at all the share tends to 1, and nothing would be bet on.
func (p *Acceptance) update(x arms, pi, weight float64, m Margin, phi, limit float64) {
	asStable := arms{nc: x.nc, ns: x.ns, ec: x.nc * p.Trend, es: x.ns * p.Trend}
	best, swings := 0.0, 0.0
	for j, bet := range acceptBets {
		u := acceptBet(bet, min(pi, max(weight, 0.5)))
		l := acceptEvidence(x, pi, m, u) / phi
		p.Bets[j] = min(p.Bets[j]*math.Exp(min(l, limit)), maxAcceptance)
		if mean := acceptEvidence(asStable, pi, m, u) / phi; mean > best {
			best, swings = mean, acceptVariance(asStable, pi, m, u)/phi
		}
	}
	if best > 0 {
		told := min(best, limit)
		p.Information = min(p.Information+told, maxEvidence)
		p.Variance = min(p.Variance+swings*told/best, maxEvidence)
	}
}

// follow moves the trend by one look. A rate is never 0, so a trend of 0 is none yet.
func (p *Acceptance) follow(x arms) {
	if x.ns <= 0 {
		return
	}
	rate := (x.es + 0.5) / (x.ns + 1)
	if p.Trend == 0 {
		p.Trend = rate
		return
	}
	p.Trend = 0.95*p.Trend + 0.05*rate
}

func (p *Acceptance) value() float64 {
	return mean(p.Bets[:])
}

// enough says that a candidate as good as stable would almost surely have been accepted by now.
func (p *Acceptance) enough(beta float64) bool {
	needed := math.Log(1/beta) + math.Log(float64(len(acceptBets)))
	return p.Information >= needed+2*math.Log(1/beta) && p.Information >= needed+2*math.Sqrt(p.Variance)
}

func (p *Acceptance) clean() {
	for j := range p.Bets {
		p.Bets[j] = min(max(finite(p.Bets[j]), 0), maxAcceptance)
	}
	p.Information = min(max(finite(p.Information), 0), maxEvidence)
	p.Variance = min(max(finite(p.Variance), 0), maxEvidence)
	p.Trend = min(max(finite(p.Trend), 0), 1)
}
