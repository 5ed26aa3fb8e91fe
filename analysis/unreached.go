// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"maps"
	"time"
)

// PeerPort is where the pods of a revision take what the others' sidecars pass on (xds.PeerPort).
const PeerPort = 15601

// unreachedEnough is how many connections must have failed to say that none succeeds: what is left out after five failures in a
// row is tried once more.
const unreachedEnough = 10

// Unreached is what there is against the network between the pods: connections to ready pods of the candidate that failed, while
// none succeeded. Such say nothing about the version. Where a NetworkPolicy does not let the port in, each request for the candidate
// is answered by stable instead: no client sees an error, and all answers are those of another version. So nothing of such a look
// is evidence, nor of the next ones, at which the sidecars leave out the pods that they could not connect to, until a request gets
// through. The zero value: nothing speaks against it.
//
// A version that ends or hangs now and then is another thing: its sidecar takes connections, and where it is down itself, some
// succeed before or after, or the pod is not ready.
type Unreached struct {
	// Connections is how many failed, For how long that has been so.
	Connections uint64        `json:"connections"`
	For         time.Duration `json:"for"`
}

func (u Unreached) any() bool { return u.Connections > 0 }

// lasts says that it is time to tell.
func (u Unreached) lasts(s Settings) bool {
	return u.Connections >= unreachedEnough && u.For >= s.BlindAfter
}

// reach says whether requests get through to the candidate at a look dt after the one before, and puts failed connections among the
// errors where they are evidence.
func (st *State) reach(l *Look, dt time.Duration) bool {
	l.Stable = connected(l.Stable, false)
	before := st.Unreached
	failed, started := connections(l.Candidate)
	if started == 0 && l.CandidatePods > 0 && (failed > 0 || before.any()) {
		st.Unreached = Unreached{Connections: addSaturating(before.Connections, failed), For: min(before.For+dt, maxDuration)}
		return false
	}
	st.Unreached = Unreached{}
	if !before.any() { // else those that failed at this look may be older than those that succeeded
		l.Candidate = connected(l.Candidate, l.CandidatePods == 0)
	}
	return true
}

// connections are how many connections to a revision's pods failed, and how many requests got through.
func connections(pods map[string]Counts) (failed, started uint64) {
	for _, c := range pods {
		failed, started = addSaturating(failed, c.Unreached), addSaturating(started, c.Started)
	}
	return failed, started
}

// connected are the pods with failed connections among the errors, if some succeeded or always.
func connected(pods map[string]Counts, always bool) map[string]Counts {
	if failed, started := connections(pods); failed == 0 || started == 0 && !always {
		return pods
	}
	pods = maps.Clone(pods) // the caller's
	for name, c := range pods {
		c.Errors = addSaturating(c.Errors, c.Unreached)
		pods[name] = c
	}
	return pods
}
