// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
)

type (
	status = v1alpha1.RolloutStatus
	args   []string
)

// commands are what may happen in a story.
var commands = map[string]func(*script, args) error{
	// The policy: policy steps=10,25@approval,50@1m,20/3 (k) onFailure=Revert maxDuration=10m | suspend | none
	"policy": (*script).policy,
	// The user. deployment n=4 template=v1 [surge=1] [hpa] [recreate]
	"deployment": (*script).deployment,
	"update":     func(s *script, a args) error { s.w.update(a[0], ""); return nil },
	"bypass":     func(s *script, a args) error { s.w.update(a[0], "because"+a[0]); return nil },
	"undo":       func(s *script, _ args) error { s.w.update(s.w.status.Stable.Hash, ""); return nil },
	"pause":      func(s *script, _ args) error { s.w.paused = true; s.w.generation++; return nil },
	"resume":     func(s *script, _ args) error { s.w.resume(); return nil },
	"scale":      (*script).scale,
	// strategy recreate, or strategy surge=2: while held it is noted as the user's, and applied when the hold ends.
	"strategy": (*script).strategy,
	"promote":  (*script).promote,
	"approve":  (*script).approve,
	"retry":    (*script).retry,
	// What goes wrong. slip v3: a template past the webhook. wipe: annotations by hand. forget: the record.
	"slip":     func(s *script, a args) error { s.w.template, s.w.gate = a[0], ""; s.w.generation++; return nil },
	"wipe":     func(s *script, _ args) error { s.w.hold = nil; s.w.generation++; return nil },
	"forget":   func(s *script, _ args) error { s.w.status = status{}; return nil },
	"recreate": (*script).recreate,
	"exported": (*script).exported,
	"pods":     (*script).pods,
	"open":     (*script).open,
	"evict":    (*script).evict,
	"silent":   (*script).silent,
	"refuses":  (*script).refuses,
	"cut":      (*script).cut,
	"joined":   (*script).joined,
	"lags":     (*script).lags,
	"down":     func(s *script, a args) error { return s.turn(a[0], true) },
	"up":       func(s *script, a args) error { return s.turn(a[0], false) },
	// The analysis: verdict Fail ErrorRate "too many errors"; verdict none.
	"verdict": (*script).verdict,
	// Time. tick 1s: one look after it. run 30s: a look each second, printing changes. clock -1h: it jumps.
	"tick": (*script).tick,
	"run":  (*script).run,
	// away 60s: nothing of Headgate is there, webhooks and all. unseen 1s: only the controller does not look.
	"away":   (*script).away,
	"unseen": (*script).unseen,
	"clock":  (*script).clock,
	// show prints the pods and the fields; stale decides once about an older generation.
	"show":  func(s *script, _ args) error { s.looked = true; s.out.WriteString(s.w.String()); return nil },
	"stale": (*script).stale,
}

// option splits key=value.
func option(a string) (key, value string) {
	key, value, _ = strings.Cut(a, "=")
	return key, value
}

func (s *script) policy(a args) error {
	p := &v1alpha1.RolloutPolicySpec{}
	for _, o := range a {
		var err error
		switch k, v := option(o); k {
		case "none":
			s.w.policy, s.w.gone = nil, s.w.now
			return nil
		case "uninstall":
			s.w.policy, s.w.uninstall = nil, true
			return nil
		case "suspend":
			p.Suspend = true
		case "steps":
			p.Steps, err = steps(v)
		case "onFailure":
			p.OnFailure = v1alpha1.OnFailure(v)
		case "onInconclusive":
			p.OnInconclusive = v1alpha1.OnInconclusive(v)
		case "onBlind":
			p.OnBlind = v1alpha1.OnBlind(v)
		case "maxDuration":
			p.MaxDuration, err = duration(v)
		case "progressDeadline":
			p.ProgressDeadline, err = duration(v)
		case "quarantineTTL":
			p.QuarantineTTL, err = duration(v)
		default:
			err = fmt.Errorf("unknown option %q", k)
		}
		if err != nil {
			return err
		}
	}
	s.w.policy = p
	return nil
}

// steps reads 10,25@approval,50@1m,20/3.
func steps(v string) (out []v1alpha1.Step, err error) {
	for _, one := range strings.Split(v, ",") {
		weight, rest, _ := strings.Cut(one, "@")
		weight, k, _ := strings.Cut(weight, "/")
		w, err := strconv.ParseInt(weight, 10, 32)
		if err != nil {
			return nil, err
		}
		step := v1alpha1.Step{Weight: int32(w)}
		if k != "" {
			v := intstr.Parse(k)
			step.Replicas = &v
		}
		switch rest {
		case "":
		case "approval":
			step.Approval = true
		default:
			if step.MinDuration, err = duration(rest); err != nil {
				return nil, err
			}
		}
		out = append(out, step)
	}
	return out, nil
}

func duration(v string) (*metav1.Duration, error) {
	d, err := time.ParseDuration(v)
	return &metav1.Duration{Duration: d}, err
}

func (s *script) deployment(a args) error {
	n, template := int32(1), "v1"
	fields := userFields()
	for _, o := range a {
		switch k, v := option(o); k {
		case "n":
			parsed, err := strconv.ParseInt(v, 10, 32)
			if err != nil {
				return err
			}
			n = int32(parsed)
		case "template":
			template = v
		case "surge":
			surge := intstr.Parse(v)
			fields.MaxSurge = &surge
		case "hpa":
			s.w.autoscaled = true
		case "recreate":
			fields = v1alpha1.UserFields{StrategyType: "Recreate"}
		default:
			return fmt.Errorf("unknown option %q", k)
		}
	}
	s.w.create(template, n)
	s.w.fields = fields
	s.pass()
	return nil
}

func (s *script) scale(a args) error {
	n, err := strconv.ParseInt(a[0], 10, 32)
	s.w.n = int32(n)
	s.w.generation++
	return err
}

func (s *script) strategy(a args) error {
	fields := userFields()
	switch k, v := option(a[0]); k {
	case "recreate":
		fields = v1alpha1.UserFields{StrategyType: "Recreate", ProgressDeadlineSeconds: fields.ProgressDeadlineSeconds}
	case "surge":
		surge := intstr.Parse(v)
		fields.MaxSurge = &surge
	default:
		return fmt.Errorf("unknown option %q", k)
	}
	if s.w.hold == nil {
		s.w.fields = fields
		s.w.generation++
		return nil
	}
	h := *s.w.hold
	h.User = fields
	s.w.hold = &h
	return nil
}

func (s *script) promote(a args) error {
	s.w.wishes.Promote = &v1alpha1.RevisionWish{Revision: cmp.Or(append(a, s.w.status.Candidate.Hash)...)}
	return nil
}

func (s *script) approve(a args) error {
	s.w.wishes.Approve = &v1alpha1.StepWish{Revision: s.w.status.Candidate.Hash, Step: s.w.status.Step}
	for _, o := range a {
		step, err := strconv.ParseInt(o, 10, 32)
		if err != nil {
			return err
		}
		s.w.wishes.Approve.Step = int32(step)
	}
	return nil
}

func (s *script) retry(a args) error {
	s.w.wishes.Retry = &v1alpha1.RevisionWish{Revision: cmp.Or(append(a, s.w.status.Candidate.Hash)...)}
	return nil
}

// recreate deletes the Deployment and creates another one of that name, from the same manifest.
func (s *script) recreate(args) error {
	s.w.uid, s.w.hold, s.w.gate = s.w.uid+"+", nil, ""
	for _, v := range s.w.versions {
		v.pods, v.size, v.exists, v.gate = nil, 0, false, ""
	}
	s.w.create(s.w.template, s.w.n)
	return nil
}

// exported n=2 template=v1: created from a manifest that was exported mid-rollout, hold and all.
func (s *script) exported(a args) error {
	if err := s.deployment(a); err != nil {
		return err
	}
	s.w.status = status{} // nobody has seen it yet
	s.w.hold = &v1alpha1.Hold{K: 1, Template: digest(s.w.template), User: s.w.fields}
	s.w.fields = heldFields(1)
	return nil
}

// pods v2 crash: all its pods, and those to come, suffer from it; pods v2 ok: no longer. pods v2-1 unready: one pod.
func (s *script) pods(a args) error {
	if len(a) != 2 {
		return errors.New("want a version or pod, and what it suffers from")
	}
	trouble := strings.TrimPrefix(a[1], "ok")
	name, _, one := strings.Cut(a[0], "-")
	v := s.w.version(name)
	if !one {
		v.trouble = trouble
	}
	for _, p := range v.pods {
		if !one || p.Name == a[0] {
			p.trouble = trouble
		}
	}
	return nil
}

// evict v2-1: this pod is deleted.
func (s *script) evict(a args) error {
	for _, v := range s.w.versions {
		v.pods = slices.DeleteFunc(v.pods, func(p *pod) bool { return p.Name == a[0] })
	}
	return nil
}

// open opens a version's gates by hand.
func (s *script) open(a args) error {
	for _, p := range s.w.version(a[0]).pods {
		p.GateOpen = true
	}
	return nil
}

// silent v1-1: this sidecar acknowledges nothing any more.
func (s *script) silent(a args) error {
	s.named(a[0], func(p *pod) { p.silent = true })
	return nil
}

// refuses v1-1 "no such filter": this sidecar acknowledges nothing any more, and says why.
func (s *script) refuses(a args) error {
	s.named(a[0], func(p *pod) { p.silent, p.refuses = true, a[1] })
	return nil
}

// cut v1-1: this sidecar can't reach the control plane any more.
func (s *script) cut(a args) error {
	s.named(a[0], func(p *pod) { p.cut = true })
	return nil
}

// joined v1-1: it can again, and nobody knows what it has until it says so.
func (s *script) joined(a args) error {
	s.named(a[0], func(p *pod) { p.cut, p.acked = false, ack{} })
	return nil
}

// lags v2-1: this sidecar comes to a replica that has not heard that the version is tried again; lags v2-1 no: it has now.
func (s *script) lags(a args) error {
	s.named(a[0], func(p *pod) { p.lags = len(a) == 1 })
	return nil
}

// named changes the pod of this name, if there is one.
func (s *script) named(name string, change func(*pod)) {
	for _, v := range s.w.versions {
		for _, p := range v.pods {
			if p.Name == name {
				change(p)
			}
		}
	}
}

// turn takes a part down, or brings it up again.
func (s *script) turn(part string, down bool) error {
	switch part {
	case "webhook":
		s.w.webhookDown = down
	case "podwebhook":
		s.w.podWebhookDown = down
	case "xds":
		s.w.xdsDown = down
	case "native":
		s.w.asleep = down
	case "replica":
		s.w.unheard = ""
		if down {
			s.w.unheard = "10.0.0.9:15610: connection refused"
		}
	case "annotations":
		s.w.dropped = down
	case "services":
		s.w.leftOutSince = time.Time{}
		if down {
			s.w.leftOutSince = s.w.now
		}
	default:
		return fmt.Errorf("no part %q", part)
	}
	return nil
}

func (s *script) verdict(a args) error {
	s.w.verdict = v1alpha1.Verdict{}
	for i, word := range a {
		judged, ok := strings.CutPrefix(word, "judged=")
		switch {
		case ok:
			d, err := time.ParseDuration(judged)
			if err != nil {
				return fmt.Errorf("parsing %s: %w", word, err)
			}
			s.w.verdict.Evidence = &v1alpha1.Evidence{StepTime: &metav1.Duration{Duration: d}}
		case word == "none":
		case i == 0:
			s.w.verdict.Result = v1alpha1.Result(word)
		case i == 1:
			s.w.verdict.Cause = word
		default:
			s.w.verdict.Message = word
		}
	}
	return nil
}

func (s *script) away(a args) error {
	s.w.podWebhookDown = true
	err := s.unseen(a)
	s.w.podWebhookDown, s.w.seenSince = false, s.w.now
	if !s.w.downSince.IsZero() {
		s.w.downSince = s.w.now // a control plane that has just started does not know since when
	}
	return err
}

func (s *script) unseen(a args) error {
	d, err := time.ParseDuration(a[0])
	for end := s.w.now.Add(d); s.w.now.Before(end); {
		s.w.now = s.w.now.Add(time.Second)
		s.w.settle()
	}
	return err
}

func (s *script) tick(a args) error {
	d, err := time.ParseDuration(a[0])
	s.w.now = s.w.now.Add(d)
	s.w.settle()
	s.look()
	return err
}

func (s *script) run(a args) error {
	d, err := time.ParseDuration(a[0])
	for range int(d / time.Second) {
		s.w.now = s.w.now.Add(time.Second)
		s.w.settle()
		if now := s.pass(); now.does != "" || now.lasts() != s.last {
			s.print(now)
		}
	}
	s.looked = true
	return err
}

func (s *script) clock(a args) error {
	d, err := time.ParseDuration(a[0])
	s.w.now = s.w.now.Add(d)
	return err
}

// stale decides once about the Deployment as it was before its last change.
func (s *script) stale(args) error {
	s.w.generation--
	s.look()
	s.w.generation++
	return nil
}
