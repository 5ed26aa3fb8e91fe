// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import "math"

// harmBets are the odds ratios, in parts of the tolerated one, that a harm component bets on: from
// half again as many failures up to an outright catastrophe.
var harmBets = [...]float64{1.5, 2, 4, 10, 50}

// minLooksToFail is how many looks the evidence of one component needs at least: one look alone, be it
// ever so bad, may be a hiccup of one pod or of the measurement.
const minLooksToFail = 4

// component is one e-process against "no harm beyond the margin".
type component struct {
	// name is what its state is stored under.
	name string
	// weight is its part of the metric's e-value; those of a metric add up to 1.
	weight float64
	// margin is what it tolerates.
	margin Margin
}

// components of the error metric.
func (s Settings) components() [1]component {
	return [...]component{
		{name: "FAST", weight: 1, margin: s.Harm},
	}
}

// cap bounds what one look may add to the logarithm of an e-value: with half of the mass in play from
// the start, a component that is right at every look crosses the threshold at look minLooksToFail.
func (c component) cap(alpha float64) float64 {
	return math.Log(1/(alpha*0.5*c.weight)) / (minLooksToFail - 0.5)
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

// Component is the state of one component.
type Component struct {
	Name string `json:"name"`
	// Bets are the e-values of the single bets, times the mass in play on each.
	Bets [len(harmBets)]float64 `json:"bets"`
}

// maxEvidence bounds every stored e-value; far above any threshold, and far from what a float64 holds.
const maxEvidence = 1e100

// update takes in one look. mass is what is put into play before it (see injection).
func (c *Component) update(def component, x arms, pi, mass, limit float64) {
	for j, bet := range harmBets {
		l := harmEvidence(x, pi, def.margin, def.margin.Ratio*bet)
		c.Bets[j] = min((c.Bets[j]+mass)*math.Exp(min(l, limit)), maxEvidence)
	}
}

// value is the component's e-value: the mean of its bets and the mass that is not in play yet.
func (c *Component) value(injected float64) float64 {
	return mean(c.Bets[:]) + 1 - injected
}

func (c *Component) clean() {
	for j := range c.Bets {
		c.Bets[j] = min(max(finite(c.Bets[j]), 0), maxEvidence)
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
func (s Settings) injection(st *State, first, newStep bool) float64 {
	mass := spreadMass / float64(s.PlannedLooks)
	if first {
		mass += firstMass
	} else if newStep && !st.Lost && s.Steps > 1 {
		mass += stepsMass / float64(s.Steps-1)
	}
	return max(min(mass, 1-st.Injected), 0)
}
