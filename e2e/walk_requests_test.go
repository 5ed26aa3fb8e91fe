// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/e2e/load"
)

// requireServed checks that there were always enough pods, and that every request was answered, as it should or as the
// failing version does, but where the user had left nobody to answer, and where an Envoy was killed.
func (w *walk) requireServed() {
	w.T.Helper()
	for _, s := range w.seen.served() {
		if least := w.floor - w.gone; s.pods < least && !w.emptyAt(s.at) {
			w.T.Errorf("only %d pods were ready at %4.0fs, want %d: the fewest replicas, less %d pods that went", s.pods, s.at.Sub(w.start).Seconds(), least, w.gone)
		}
	}
	var excused []interval
	for _, i := range w.seen.nobody() {
		if slices.ContainsFunc(w.empty, i.overlaps) {
			w.say("(nobody served from %.0fs on for %.0fs)", i.from.Sub(w.start).Seconds(), i.to.Sub(i.from).Seconds())
			excused = append(excused, i.widened())
		}
	}
	for _, l := range w.loads {
		requireOwnFailures(w.T, l.Stop())
		each(l.Reports(), func(before, now load.Report) {
			lost, second := now.Versions[""].Failed-before.Versions[""].Failed, interval{before.At, now.At}
			if lost > 0 && !slices.ContainsFunc(excused, second.overlaps) && !w.spared(second, lost) {
				w.T.Errorf("%d requests were not answered at %4.0fs: %v", lost, now.At.Sub(w.start).Seconds(), now.Minus(before.Counts).Classes)
			}
		})
	}
	for _, s := range w.spares {
		w.say("(at %.0fs: %s: %d more requests might have been lost)", s.from.Sub(w.start).Seconds(), s.why, s.requests)
	}
}

// widened is a time in which nobody served, and how long clients may need to notice its beginning and its end: some ask again
// only after a while that grows with each try, and some that asked before the end wait for 15 s.
func (i interval) widened() interval {
	return interval{i.from.Add(-time.Second), i.to.Add(min(i.to.Sub(i.from), 2*time.Minute) + 15*time.Second)}
}

// each hands every second of a client to see.
func each(all []load.Report, see func(before, now load.Report)) {
	before := load.Report{At: all[0].At.Add(-time.Second)}
	for _, now := range all {
		see(before, now)
		before = now
	}
}

// spared takes lost requests from those that a killed Envoy may have cost.
func (w *walk) spared(second interval, lost int64) bool {
	for i := range w.spares {
		if s := &w.spares[i]; second.overlaps(interval{s.from, s.to}) && s.requests >= lost {
			s.requests -= lost
			return true
		}
	}
	return false
}

// requireOwnFailures checks that of all answers only those of the version that fails requests were failures, and its own.
func requireOwnFailures(t testing.TB, r load.Report) {
	t.Helper()
	failed := r.Failed - r.Versions[""].Failed // what nobody answered is for requireServed
	own := r.Classes["status-500"] + r.Classes["grpc-Internal"]
	if failed != r.Versions["errors"].Failed || failed != own || r.Sent == 0 || !r.Final {
		t.Errorf("%d of %d requests were answered with a failure, %d of them as a version does that fails some: %v %v\n%s",
			failed, r.Sent, own, r.Classes, r.Versions, strings.Join(r.Samples, "\n"))
	}
	t.Logf("%d requests, %d failed, versions %v", r.Sent, r.Failed, r.Versions)
}

// requireAnswers checks that the failing version answered no more than its weight explains, until it was let out: each second
// no more than the greatest weight that a sidecar may have heard of then, of all that was answered in that second. What
// comes out of that is a sum of chances, of which four standard deviations are allowed, and ten for short histories. And it
// had a weight for no longer than any rollout may take, and the control plane was away: five of a hundred answers failed, which
// nobody needs two minutes to see.
func (w *walk) requireAnswers() {
	w.T.Helper()
	const version = "errors"
	got, may := 0.0, 0.0
	for _, l := range w.loads {
		each(l.Reports(), func(before, now load.Report) {
			if since, out := w.out[version]; out && now.At.After(since) {
				return
			}
			got += float64(now.Versions[version].Total() - before.Versions[version].Total())
			may += w.mayAnswer(version, before.At, now.At) * float64(now.OK+now.Failed-before.OK-before.Failed)
		})
	}
	w.say("%.0f answers of %s without anybody having let it out, its weights explain %.0f", got, version, may)
	if got > may+4*math.Sqrt(may)+10 {
		w.T.Errorf("%.0f answers of %s, which has to get no more than %.0f", got, version, may)
	}
	if _, out := w.out[version]; out {
		return
	}
	limit := 2*time.Minute + 30*time.Second
	for _, i := range w.deaf {
		limit += i.to.Sub(i.from)
	}
	for revision, d := range w.seen.exposed(version) {
		w.say("%s (%s) was to get requests for %.0fs", revision, version, d.Seconds())
		if d > limit {
			w.T.Errorf("%s was to get requests for %v, though %s fails many, want at most %v", revision, d, version, limit)
		}
	}
}

// mayAnswer is the greatest share that a version may have had.
func (w *walk) mayAnswer(version string, from, to time.Time) float64 {
	if since, deaf := w.deafAt(to); deaf {
		from = since.from
	}
	return w.seen.share(version, from.Add(-heardWithin), to)
}

// requestsWithin is how many requests clients send to one of two pods in a time.
func requestsWithin(clients int, d time.Duration) int64 {
	rate := 0.0
	for _, r := range shortKinds() {
		rate += r
	}
	return int64(float64(clients) * rate / leastPods * d.Seconds())
}
