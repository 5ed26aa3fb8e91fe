// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Controllers are native controllers, one decision a call. This package has models of them, and package fidelity the real
// ones, to compare.
type Controllers interface {
	// SyncDeployment is a pass of the Deployment controller; after an error there is another one.
	SyncDeployment(*appsv1.Deployment) error
	// SyncReplicaSet is a pass of the ReplicaSet controller; after an error there is another one.
	SyncReplicaSet(*appsv1.ReplicaSet) error
	// Replicas is what an autoscaler makes of the current N and the CPU that each pod used in the last MetricWindow, by the
	// pod's name, in thousandths. An error means that N stays.
	Replicas(hpa *autoscalingv2.HorizontalPodAutoscaler, current int32, usage map[string]int64) (int32, error)
}

// Cluster is a world as one native controller sees and changes it.
type Cluster struct {
	w     *world
	cache memory
	by    string
}

// Now is the time in the world.
func (c *Cluster) Now() time.Time { return c.w.api.now }

// Objects are the Deployments, ReplicaSets and pods that the controller has seen, by name. Nobody may modify them.
func (c *Cluster) Objects() (out []client.Object) {
	for _, k := range []kind{deployments, replicaSets, pods} {
		for _, o := range c.cache.all(k) {
			if o.GetNamespace() == webKey.Namespace {
				out = append(out, o)
			}
		}
	}
	return out
}

// Create creates an object, which then is what is stored. A ReplicaSet gets its version as its hash, as all do here.
func (c *Cluster) Create(o client.Object) error {
	if rs, ok := o.(*appsv1.ReplicaSet); ok {
		setHash(rs)
	}
	return c.w.api.create(c.by, o)
}

// Update replaces an object, or its status alone; the object then is what is stored.
func (c *Cluster) Update(o client.Object, status bool) error { return c.w.api.update(c.by, o, status) }

// Delete removes an object.
func (c *Cluster) Delete(o client.Object) error { return c.w.api.remove(c.by, o, nil) }

// quietSeconds is how long the quiet after a history is compared.
const quietSeconds = 60

// Compare plays a history, and the quiet after it, in two worlds: in one with the models, in the other with the controllers
// that are made of what the Deployment and the ReplicaSet controller see. It returns for how many seconds they were the
// same, and what differed then; empty: nothing. The error is about a line that can't be read.
func Compare(h History, with func(deployments, replicaSets *Cluster) Controllers) (seconds int, difference string, err error) {
	model, other := newWorld(), newWorld()
	c := with(&Cluster{other, other.native.view.memory, other.native.by}, &Cluster{other, other.api.memory, other.sets.by})
	other.native.pass, other.sets.pass, other.scaler.wants = c.SyncDeployment, c.SyncReplicaSet, c.Replicas
	for _, m := range moments(h) {
		for _, w := range []*world{model, other} {
			if err := m.happens(w); err != nil {
				return seconds, "", err
			}
			w.oracle.violation = nil // that is for Play to find
		}
		at := model.api.now.Sub(noon)
		if a, b := model.workload(), other.workload(); !apiequality.Semantic.DeepEqual(a, b) {
			return seconds, fmt.Sprintf("[%s] after %q (- model, + other):\n%s", at, m.line, cmp.Diff(a, b, cmpopts.EquateEmpty())), nil
		}
		seconds = int(at.Seconds())
	}
	return seconds, "", nil
}

type moment struct {
	line    string
	happens func(*world) error
}

// moments are a history in steps of a second at most, so that the first difference is found, and then the quiet.
func moments(h History) (out []moment) {
	add := func(line string, happens func(*world) error) { out = append(out, moment{line, happens}) }
	for _, line := range h {
		var d time.Duration
		if words := strings.Fields(line); words[0] == "run" && len(words) == 2 {
			d, _ = time.ParseDuration(words[1]) // what can't be read is refused below
		}
		for ; d > time.Second; d -= time.Second {
			add(line, func(w *world) error { return w.do("run 1s") })
		}
		if d > 0 {
			line = "run " + d.String()
		}
		add(line, func(w *world) error { return w.do(line) })
	}
	quietly := func(does func(*world)) func(*world) error {
		return func(w *world) error {
			if w.deployment() != nil {
				does(w)
			}
			return nil
		}
	}
	add("the world is quiet", quietly((*world).calm))
	for range quietSeconds {
		add("the world is quiet", quietly(func(w *world) { w.decide(); w.round() }))
	}
	return out
}

// workload is what is compared: all that is stored of the workload, but for how often it was written.
func (w *world) workload() (out []client.Object) {
	for _, o := range (&Cluster{w: w, cache: w.api.memory}).Objects() {
		o = o.DeepCopyObject().(client.Object)
		o.SetResourceVersion("")
		out = append(out, o)
	}
	return out
}
