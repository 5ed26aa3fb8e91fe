// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// action is one line of a history: something that somebody does, or that time passes. What can't be done
// in the situation at hand (an undo without a history) is left out, as kubectl would refuse it, so that any
// part of a history is a history.
type action struct {
	does func(w *world, args []string) error
	// usage is for the message about a line that can't be read.
	usage string
}

// actions are all that can happen.
var actions = map[string]action{
	"replicas":  {number(func(w *world, n int32) error { w.user.replicas = n; return nil }), "N, for the creation"},
	"history":   {number(func(w *world, n int32) error { w.user.history = n; return nil }), "N old revisions are kept, for the creation"},
	"create":    {text(func(w *world, v string) error { return w.user.create(v) }), "VERSION"},
	"run":       {run, "DURATION"},
	"steps":     {number(func(w *world, n int32) error { w.steps(int(n)); return nil }), "N single steps of single actors"},
	"first":     {number(func(w *world, n int32) error { w.first = int(n) % len(w.actors()); return nil }), "N, the actor that begins a round"},
	"set-image": {text(func(w *world, v string) error { return w.user.setImage(v) }), "VERSION"},
	"apply":     {text(func(w *world, v string) error { return w.user.apply(v) }), "VERSION, the whole manifest"},
	"undo":      {plain(func(w *world) error { return w.user.undo() }), ""},
	"pause":     {plain(func(w *world) error { return w.user.pause(true) }), ""},
	"resume":    {plain(func(w *world) error { return w.user.pause(false) }), ""},
	"scale":     {number(func(w *world, n int32) error { return w.user.scaleTo(n) }), "N"},
	"strategy":  {strategy, "Recreate, or MAXSURGE MAXUNAVAILABLE DEADLINE"},
	"bypass":    {text(func(w *world, v string) error { return w.user.bypass(v) }), "VERSION"},
	"wipe":      {plain(func(w *world) error { return w.user.wipe() }), ""},
	"slip":      {text(func(w *world, v string) error { return w.user.slip(v) }), "VERSION, while the webhooks do not see it"},
	"delete":    {plain(func(w *world) error { return w.user.deleteDeployment() }), ""},
	"forget":    {plain(func(w *world) error { return w.user.deleteRecord() }), ""},
	"wish":      {text(func(w *world, what string) error { return w.user.wish(what) }), "retry, promote or approve"},
	"policy":    {text(func(w *world, name string) error { return w.setPolicy(name) }), "NAME"},
	"enabled":   {onOff(func(w *world, on bool) error { return w.user.enable(on) }), "on or off: the namespace's label"},
	"release":   {onOff(func(w *world, on bool) error { return w.user.releaseAll(on) }), "on or off: headgate release --all"},
	"kill":      {text(func(w *world, v string) error { return w.user.killPod(v) }), "VERSION: one pod of it"},
	"sicken":    {text(func(w *world, v string) error { return w.user.sicken(v) }), "VERSION: one pod of it"},
	"trouble":   {trouble, "VERSION WHAT"},
	"verdict":   {verdict, "VERSION RESULT"},
	"node":      {node, "NAME up or down"},
	"hpa":       {onOff(func(w *world, on bool) error { w.scaler.set(on); return nil }), "on or off"},
	"load":      {number(func(w *world, n int32) error { w.scaler.load = float64(n); return nil }), "N pods' worth of work"},
	"mute":      {text(func(w *world, v string) error { w.sidecars.mute[v] = !w.sidecars.mute[v]; return nil }), "VERSION: its sidecars answer no more, or again"},
	"xds":       {onOff(func(w *world, on bool) error { w.sidecars.cut = !on; return nil }), "on or off"},
	"webhooks":  {onOff(func(w *world, on bool) error { w.chain.hooksDown = !on; return nil }), "on or off"},
	"podhook":   {onOff(func(w *world, on bool) error { w.chain.podsTimeOut = !on; return nil }), "on or off"},
	"reinvoke":  {onOff(func(w *world, on bool) error { w.chain.again = on; return nil }), "on or off"},
	"replica":   {replicaAction, "NAME down, up, leads or follows"},
	"fault":     {faultAction, "REPLICA WHAT AFTER: at one of its next writes"},
	"stale":     {stale, "REPLICA or native, KIND or all, DURATION: its cache stands still"},
	"asleep":    {duration(func(w *world, d time.Duration) error { w.asleep = w.api.now.Add(d); return nil }), "DURATION: the Deployment controller does nothing"},
}

// errUsage: a line that no world can understand.
var errUsage = errors.New("usage")

func plain(f func(*world) error) func(*world, []string) error {
	return func(w *world, args []string) error {
		if len(args) != 0 {
			return errUsage
		}
		return f(w)
	}
}

func text(f func(*world, string) error) func(*world, []string) error {
	return func(w *world, args []string) error {
		if len(args) != 1 {
			return errUsage
		}
		return f(w, args[0])
	}
}

func number(f func(*world, int32) error) func(*world, []string) error {
	return text(func(w *world, arg string) error {
		n, err := strconv.ParseInt(arg, 10, 32)
		if err != nil || n < 0 {
			return errUsage
		}
		return f(w, int32(n))
	})
}

func duration(f func(*world, time.Duration) error) func(*world, []string) error {
	return text(func(w *world, arg string) error {
		d, err := time.ParseDuration(arg)
		if err != nil {
			return errUsage
		}
		return f(w, d)
	})
}

func onOff(f func(*world, bool) error) func(*world, []string) error {
	return text(func(w *world, arg string) error {
		if arg != "on" && arg != "off" {
			return errUsage
		}
		return f(w, arg == "on")
	})
}

func run(w *world, args []string) error {
	return duration(func(w *world, d time.Duration) error {
		for end := w.api.now.Add(d); w.api.now.Before(end) && w.oracle.violation == nil; {
			w.round()
		}
		return nil
	})(w, args)
}

func (w *world) steps(n int) {
	for range n {
		if w.oracle.violation == nil {
			w.step()
		}
	}
}

func strategy(w *world, args []string) error {
	if slices.Equal(args, []string{"Recreate"}) {
		return w.user.strategy(recreate())
	}
	if len(args) != 3 {
		return errUsage
	}
	deadline, err := strconv.ParseInt(args[2], 10, 32)
	if err != nil {
		return errUsage
	}
	f := rolling(args[0], args[1], int32(deadline))
	if w.deployment() == nil {
		w.user.fields = f
		return nil
	}
	return w.user.strategy(f)
}

func trouble(w *world, args []string) error {
	if len(args) != 2 || !slices.Contains([]string{healthy, crashes, hangs, noImage, killed, noRoom}, args[1]) {
		return errUsage
	}
	w.kubelets.trouble[args[0]] = args[1]
	return nil
}

// verdicts by name.
var verdicts = map[string]v1alpha1.Verdict{
	"Undecided":    {Result: v1alpha1.ResultUndecided},
	"Pass":         {Result: v1alpha1.ResultPass},
	"Fail":         {Result: v1alpha1.ResultFail, Cause: "ErrorRate", Message: "errors"},
	"Hold":         {Result: v1alpha1.ResultHold, Cause: "ErrorRate", Message: "not good enough"},
	"Blind":        {Result: v1alpha1.ResultHold, Cause: "Blind", Message: "no data"},
	"Inconclusive": {Result: v1alpha1.ResultInconclusive, Message: "little traffic"},
}

func verdict(w *world, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	v, ok := verdicts[args[1]]
	if !ok {
		return errUsage
	}
	w.analysis.verdicts[args[0]] = v
	return nil
}

// policySpecs by name.
var policySpecs = map[string]*v1alpha1.RolloutPolicySpec{
	"none":       nil,
	"default":    {},
	"suspended":  {Suspend: true},
	"revert":     {OnFailure: v1alpha1.OnFailureRevert},
	"quarantine": {OnFailure: v1alpha1.OnFailureQuarantine},
	"managed":    {Rollback: v1alpha1.RollbackManaged},
	"cautious":   {OnInconclusive: v1alpha1.OnInconclusiveRollBack, Steps: []v1alpha1.Step{{Weight: 50}}},
	"approval":   {Steps: []v1alpha1.Step{{Weight: 20}, {Weight: 60, Approval: true, MinDuration: &metav1.Duration{Duration: 5 * time.Second}}}},
	"shortlived": {QuarantineTTL: &metav1.Duration{Duration: 40 * time.Second}, ProgressDeadline: &metav1.Duration{Duration: 20 * time.Second}},
}

func (w *world) setPolicy(name string) error {
	spec, ok := policySpecs[name]
	if !ok {
		return errUsage
	}
	return w.user.policy(spec)
}

func node(w *world, args []string) error {
	if len(args) != 2 || !slices.Contains(nodes, args[0]) || (args[1] != "up" && args[1] != "down") {
		return errUsage
	}
	w.kubelets.down[args[0]] = args[1] == "down"
	return nil
}

func (w *world) replica(name string) *replica {
	for _, r := range w.replicas {
		if r.name == name {
			return r
		}
	}
	return nil
}

func replicaAction(w *world, args []string) error {
	if len(args) != 2 || w.replica(args[0]) == nil {
		return errUsage
	}
	switch r := w.replica(args[0]); args[1] {
	case "down":
		r.down = true
	case "up":
		r.down = false
		r.start()
	case "leads":
		r.leads, r.news = true, true
	case "follows":
		r.leads = false
	default:
		return errUsage
	}
	return nil
}

func faultAction(w *world, args []string) error {
	if len(args) != 3 || w.replica(args[0]) == nil {
		return errUsage
	}
	skip, err := strconv.Atoi(args[2])
	if err != nil {
		return errUsage
	}
	w.replica(args[0]).client.fault, w.replica(args[0]).client.skip = fault(args[1]), skip
	return nil
}

func stale(w *world, args []string) error {
	if len(args) != 3 {
		return errUsage
	}
	d, err := time.ParseDuration(args[2])
	if err != nil {
		return errUsage
	}
	frozen := w.nativeFrozen
	if args[0] != "native" {
		r := w.replica(args[0])
		if r == nil {
			return errUsage
		}
		frozen = r.frozen
	}
	frozen[kind(args[1])] = w.api.now.Add(d)
	return nil
}

// History is what happened, one action a line.
type History []string

// ParseHistory reads a history; empty lines and those that begin with # do not count.
func ParseHistory(text string) (History, error) {
	var h History
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if _, ok := actions[strings.Fields(line)[0]]; !ok {
			return nil, fmt.Errorf("%q: there are %v", line, slices.Sorted(maps.Keys(actions)))
		}
		h = append(h, line)
	}
	return h, nil
}

// String is the history as text that ParseHistory reads.
func (h History) String() string { return strings.Join(h, "\n") + "\n" }

// do lets one line happen.
func (w *world) do(line string) error {
	words := strings.Fields(line)
	a := actions[words[0]]
	if err := a.does(w, words[1:]); errors.Is(err, errUsage) {
		return fmt.Errorf("%q: want %s %s", line, words[0], a.usage)
	}
	return nil
}
