// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"math"
	"time"
)

// harmBets are the odds ratios, in parts of the tolerated one, that a harm component bets on: from
// half again as many failures up to an outright catastrophe.
var harmBets = [...]float64{1.5, 2, 4, 10, 50}

// minLooksToFail is how many looks the evidence of one component needs at least: one look alone, be it
// ever so bad, may be a hiccup of one pod or of the measurement.
const minLooksToFail = 4

// Weights of the components in a rate's e-value; together 1. A mean of e-values is one, whatever they
// have to do with each other.
const (
	// fastWeight is FAST's: the likelihood ratio of every look, tempered by how much pods differ.
	fastWeight = 0.5
	// grossWeight is GROSS': the same with a margin so wide that pods' differences don't matter. It is
	// not tempered, so a catastrophe is found in four looks in the noisiest service.
	grossWeight = 0.25
	// outlierWeight is OUTLIER's.
	outlierWeight = 0.25
)

// grossMargin is what GROSS tolerates.
var grossMargin = Margin{Ratio: 3, Excess: 0.2}

// limit bounds what one step of a component may add to the logarithm of its e-value: with half of the mass in
// play from the start, a component that is right at every step and has this part of the whole crosses
// the threshold at step k. It only ever makes an e-value smaller.
func limit(alpha, part float64, k int) float64 {
	return math.Log(1/(alpha*0.5*part)) / (float64(k) - 0.5)
}

// harmCoefficients are the weights of a candidate's (a) and a stable's (b) error in the logarithm of
// the likelihood ratio "odds theta" against "odds rho" at share pi; theta > rho >= 1.
func harmCoefficients(pi, rho, theta float64) (a, b float64) {
	tolerated := math.Log(1 - pi + pi*rho)
	claimed := math.Log(1 - pi + pi*theta)
	return math.Log(theta/rho) + tolerated - claimed, claimed - tolerated
}

// harmEvidence is the logarithm of the e-value of one look. For every error rate of stable, and every
// rate of the candidate within the margin, its exponential has an expectation of at most 1: a and b
// are such that stable's rate cancels out, and the last term pays for the excess.
func harmEvidence(x arms, pi float64, m Margin, theta float64) float64 {
	a, b := harmCoefficients(pi, m.Ratio, theta)
	return a*x.ec - b*x.es - m.Excess*x.nc*math.Expm1(a)
}

// Bets are the e-values of the single bets of a component, times the mass in play on each.
type Bets [len(harmBets)]float64

// maxEvidence bounds every stored e-value; far above any threshold, and far from what a float64 holds.
const maxEvidence = 1e100

// update takes in one look. mass is what is put into play before it (see injection), phi by how much
// the evidence is tempered.
func (b *Bets) update(x arms, pi float64, m Margin, mass, phi, limit float64) {
	for j, bet := range harmBets {
		l := harmEvidence(x, pi, m, m.Ratio*bet) / phi
		b[j] = min((b[j]+mass)*math.Exp(min(l, limit)), maxEvidence)
	}
}

// value is the component's e-value: the mean of its bets and the mass that is not in play yet.
func (b *Bets) value(injected float64) float64 {
	return mean(b[:]) + max(1-injected, 0)
}

func (b *Bets) clean() {
	for j := range b {
		b[j] = min(max(finite(b[j]), 0), maxEvidence)
	}
}

// Masses of the restarts; together 1.
const (
	firstMass  = 0.5  // at the first look
	stepsMass  = 0.25 // over the first looks of all later steps
	spreadMass = 0.25 // over all planned looks
)

// injection is the mass to put into play before a look. An e-process that starts at the first look
// only makes a candidate that was fine for 20 minutes owe evidence against itself; the mixture over
// starting points does not, and it is an e-process too, because the masses add up to at most 1.
//
// What was put into play by a state that was lost is not known. But it can't be more than for the looks that there may have been,
// so the looks that are left of those planned have theirs, and later ones none: else each loss after that would bring its own
// chance of a false Fail.
func (s Settings) injection(st *State, first, newStep bool) float64 {
	if st.Lost && s.planOver(st.Last) {
		return 0
	}
	mass := spreadMass / float64(s.PlannedLooks)
	if first {
		mass += firstMass
	} else if newStep && !st.Lost && s.Steps > 1 {
		mass += stepsMass / float64(s.Steps-1)
	}
	return max(min(mass, 1-st.Injected), 0)
}

// planOver says that the time of the planned looks has passed.
func (s Settings) planOver(at time.Time) bool {
	return !s.Began.IsZero() && at.Sub(s.Began).Seconds() >= float64(s.PlannedLooks)*s.Interval.Seconds()
}
