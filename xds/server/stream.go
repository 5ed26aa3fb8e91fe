// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/headgate/headgate/xds"
)

// stream is one connected sidecar: what it gets, what it was sent and what it confirmed. The server's
// lock guards it.
type stream struct {
	id    int64
	key   Key
	who   Identity
	since time.Time

	// target is where it should be; nil while nobody said so, and then it waits.
	target *target
	// at is what it is being served, one stage of the way; plan is the rest of the way, whose last
	// stage is target.
	at   xds.Resources
	plan []xds.Resources
	// started is set by the first request for clusters. Before, it is unknown whether the sidecar is
	// new (and may get everything at once) or has a configuration already.
	started bool
	// named counts the names that the client ever brought, see admits.
	named int

	// requested are the types of which a request was seen.
	requested [4]bool
	sent      xds.Versions
	confirmed xds.Versions
	// flights are the responses without an answer, by nonce.
	flights map[string]flight
	watches [4]*watch

	// end ends it, with a reason for the client.
	end func(cause error)
	// later calls advance again, after a time. idleSince is when the clusters that the next stage takes
	// away fell out of use; zero while they are in use.
	later     func(time.Duration)
	linger    time.Duration
	idleSince time.Time

	// settled is the last target that was confirmed completely, wantedAt when target was set. moved says that
	// another state was wanted since then. It stays until a target is settled again, also when the state of settled is
	// wanted again: the other one may be on its way to the sidecar, or in force there.
	settled   *target
	moved     bool
	wantedAt  time.Time
	refused   string
	metrics   *Metrics
	stageFrom time.Time
}

// flight is what one response says.
type flight struct {
	of       xds.Type
	versions map[string]string
	removed  []string
}

func newStream(id int64, key Key, who Identity, cfg *Config) *stream {
	now := time.Now()
	st := &stream{
		id: id, key: key, who: who, since: now, wantedAt: now, stageFrom: now,
		metrics: cfg.Metrics, linger: cfg.Linger, flights: map[string]flight{},
	}
	for _, t := range xds.Types() {
		st.sent[t], st.confirmed[t] = map[string]string{}, map[string]string{}
	}
	return st
}

// retarget plans anew, from what is being served now.
func (st *stream) retarget(next *target) {
	st.want(next)
	st.wantedAt, st.idleSince = time.Now(), time.Time{}
	st.replan()
	st.advance()
	st.settle()
}

// rename is retarget for equal content.
func (st *stream) rename(last, next *target) {
	if st.target != last {
		st.retarget(next)
		return
	}
	if st.settled == last {
		st.settled = next
	}
	st.want(next)
}

// want makes next the target.
func (st *stream) want(next *target) {
	st.target = next
	if st.settled != nil && st.settled.state != next.state {
		st.moved = true
	}
}

func (st *stream) replan() {
	if st.target == nil || !st.started {
		return
	}
	if len(st.at[xds.Clusters]) == 0 {
		// A new sidecar takes no requests yet, and has its own order of waiting.
		st.at, st.plan = st.target.resources, nil
		return
	}
	st.plan = xds.Stages(st.at, st.target.resources)
	if len(st.plan) == 0 {
		st.at = st.target.resources // the same, and all of its content known
	}
}

// begin takes in the first request of a type, with the versions that the sidecar has from an earlier
// stream, of this replica or another, or from `headgate run`.
func (st *stream) begin(t xds.Type, has map[string]string) {
	st.requested[t] = true
	for name, version := range has {
		st.sent[t][name], st.confirmed[t][name] = version, version
	}
	if len(has) > 0 {
		st.at[t] = xds.Known(t, has, st.content())
	}
	if t == xds.Clusters {
		st.started = true
	}
	st.replan()
}

func (st *stream) content() *xds.Resources {
	if st.target == nil {
		return &xds.Resources{}
	}
	return &st.target.resources
}

// request takes in what the sidecar says; it reports whether that changed what is known about it.
func (st *stream) request(t xds.Type, req *discoveryv3.DeltaDiscoveryRequest) (news bool) {
	if !st.requested[t] {
		st.begin(t, req.GetInitialResourceVersions())
	}
	for _, name := range req.GetResourceNamesUnsubscribe() {
		delete(st.sent[t], name)
		delete(st.confirmed[t], name)
	}
	if f, ok := st.flights[req.GetResponseNonce()]; ok {
		delete(st.flights, req.GetResponseNonce())
		news = st.answer(f, req)
	}
	st.advance()
	return st.settle() || news
}

// answer takes in an acknowledgement or a refusal. What was refused may be in force in part; it counts
// as not acknowledged.
func (st *stream) answer(f flight, req *discoveryv3.DeltaDiscoveryRequest) (news bool) {
	if e := req.GetErrorDetail(); e != nil {
		st.refused = refusal(e.GetMessage())
		st.metrics.refused(f.of)
		return true
	}
	for name, version := range f.versions {
		st.confirmed[f.of][name] = version
	}
	for _, name := range f.removed {
		delete(st.sent[f.of], name)
		delete(st.confirmed[f.of], name)
	}
	return false
}

// refusal is what is kept of a client's reason.
func refusal(reason string) string {
	if reason == "" {
		return "refused without a reason"
	}
	return cut(reason, maxReasonBytes)
}

// advance goes on to the stages that are safe now.
func (st *stream) advance() {
	for len(st.plan) > 0 && st.plan[0].SafeFor(&st.sent, &st.confirmed) && !st.lingers(&st.plan[0]) {
		now := time.Now()
		st.metrics.stage(now.Sub(st.stageFrom))
		st.stageFrom = now
		st.at, st.plan = st.plan[0], st.plan[1:]
		st.pushAll()
	}
	st.pushAll()
}

// lingers says that next takes clusters away and that it is too early for that.
func (st *stream) lingers(next *xds.Resources) bool {
	if !next.Removes(&st.sent) {
		return false
	}
	if st.idleSince.IsZero() {
		st.idleSince = time.Now()
		st.later(st.linger)
	}
	return time.Since(st.idleSince) < st.linger
}

// pushAll keeps the order of types: what is named goes out before what names it.
func (st *stream) pushAll() {
	for _, t := range xds.Types() {
		st.push(t)
	}
}

// push answers the open watch of a type, if there is something to say.
func (st *stream) push(t xds.Type) {
	w := st.watches[t]
	if w == nil || st.target == nil || !st.started {
		return
	}
	r := w.respond(st.at[t])
	if r == nil {
		return
	}
	st.watches[t] = nil
	for _, x := range r.body.GetResources() {
		st.sent[t][x.GetName()] = x.GetVersion()
	}
	st.metrics.pushed(t)
	w.out <- r // never blocks: see watch.out
}

// settle notes that the target is in force completely; it reports whether that is new. A version that was
// confirmed once is not enough: a later one may be on its way, which the target has taken back since.
func (st *stream) settle() bool {
	if st.target == nil || st.settled == st.target || len(st.flights) > 0 {
		return false
	}
	if want := &st.target.resources; !st.sent.Has(want) || !st.confirmed.Has(want) {
		return false
	}
	st.settled, st.moved, st.refused = st.target, false, ""
	st.metrics.acknowledged(time.Since(st.wantedAt))
	return true
}

// ack is what is known about the sidecar.
func (st *stream) ack() Ack {
	a := Ack{Pod: st.who.Pod, UID: st.who.PodUID, Since: st.since, Refused: st.refused}
	if st.settled != nil && !st.moved {
		a.Known, a.State = true, st.settled.state
	}
	return a
}
