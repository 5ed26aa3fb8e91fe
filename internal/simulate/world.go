// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/controller"
)

// webKey is the workload that all histories are about.
var webKey = types.NamespacedName{Namespace: "shop", Name: "web"}

func keyOf(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// noon is when all histories begin.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is everything around one workload: the API, the native controllers, kubelets and sidecars, two
// replicas of Headgate, and the oracle that watches.
type world struct {
	api      *api
	chain    *admissionChain
	native   *deploymentController
	sets     *replicaSetController
	kubelets *kubelets
	scaler   *autoscaler
	replicas [2]*replica
	sidecars *sidecars
	analysis *analysis
	oracle   *oracle
	user     *user

	acting       *replica // whose pass is under way, or was last
	nativeFrozen until
	asleep       time.Time // the Deployment controller does nothing until then
	// turn is the actor that is next; first is who begins a round.
	turn, first int
	// taken is how many steps there were.
	taken int
}

func newWorld() *world {
	w := &world{api: newAPI(noon), nativeFrozen: until{}}
	w.chain = &admissionChain{w: w}
	w.api.admit = w.chain
	w.native, w.sets = newDeploymentController(w.api), newReplicaSetController(w.api)
	w.kubelets = &kubelets{api: w.api, trouble: map[string]string{}, sick: map[string]bool{}, down: map[string]bool{}, settled: map[string]settled{}}
	w.scaler = newAutoscaler(w)
	w.sidecars = &sidecars{w: w, mute: map[string]bool{}, acks: map[string]controller.Ack{}}
	w.analysis = &analysis{w: w, verdicts: map[string]v1alpha1.Verdict{}}
	w.user = newUser(w)
	w.oracle = newOracle(w)
	w.api.wrote = w.oracle.wrote
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{v1alpha1.EnabledLabel: "true"}}}
	policy := &v1alpha1.RolloutPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	own := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "headgate"}}
	_ = w.api.create("admin", shop)
	_ = w.api.create("admin", policy)
	_ = w.api.create("admin", own)
	for i, name := range []string{"a", "b"} {
		w.replicas[i] = &replica{name: name, w: w, leads: i == 0}
		w.replicas[i].start()
	}
	return w
}

// deployment is the workload as it is stored; nil while there is none.
func (w *world) deployment() *appsv1.Deployment {
	d, _ := w.api.memory[deployments][webKey].(*appsv1.Deployment)
	return d
}

// record is what is stored about this very Deployment; empty without.
func (w *world) record() *v1alpha1.RolloutStatus {
	r, ok := w.api.memory[records][webKey].(*v1alpha1.Rollout)
	d := w.deployment()
	if !ok || d == nil || r.Status.DeploymentUID != d.UID {
		return &v1alpha1.RolloutStatus{}
	}
	return &r.Status
}

// versionOf is what a template runs; it names the revision too.
func versionOf(t *corev1.PodTemplateSpec) string { return t.Spec.Containers[0].Image }

// actors in their usual order; a history may begin the round with any of them.
func (w *world) actors() []func() {
	native := func() {
		if w.api.now.Before(w.asleep) {
			return
		}
		for range 4 { // it is far quicker than a round
			news := w.native.view.catchUp(func(k kind) bool {
				return w.api.now.Before(w.nativeFrozen[k]) || w.api.now.Before(w.nativeFrozen["all"])
			})
			w.native.sync(news)
			w.sets.sync()
		}
	}
	return []func(){
		native, w.kubelets.sync, w.replicas[0].step, w.replicas[1].step, w.sidecars.sync, w.scaler.sync, w.api.collectGarbage,
	}
}

// step lets the next actor act. After the last one of a round a second is over.
func (w *world) step() {
	all := w.actors()
	all[(w.first+w.turn)%len(all)]()
	w.taken++
	if w.turn++; w.turn == len(all) {
		w.turn = 0
		w.oracle.roundIsOver()
		w.api.now = w.api.now.Add(time.Second)
	}
}

// round lets everybody act once.
func (w *world) round() {
	for first := true; first || w.turn != 0; first = false {
		w.step()
		if w.oracle.violation != nil {
			return
		}
	}
}

// sidecars acknowledge what the xDS server of their replica says. Of one that does not answer nothing is
// known any more once something else is wanted.
type sidecars struct {
	w    *world
	mute map[string]bool // versions whose sidecars do not answer
	cut  bool            // no sidecar reaches any server
	acks map[string]controller.Ack
	// tamper, if set, changes what a sidecar of a version does: a bug that is built in.
	tamper func(version string, ack *controller.Ack)
}

func (s *sidecars) sync() {
	for _, o := range s.w.api.all(pods) {
		pod := o.(*corev1.Pod)
		r := s.server(pod)
		if r == nil {
			continue
		}
		ack := controller.Ack{Pod: pod.Name}
		if x, ok := r.configs[hashOf(pod)]; ok && x.Split != nil {
			ack.Peer, ack.PeerWeight, ack.Over = x.Split.Peer, int32(x.Split.PeerWeight), x.Split.Over
		}
		if s.tamper != nil {
			s.tamper(hashOf(pod), &ack)
		}
		if s.mute[hashOf(pod)] && s.acks[pod.Name] != ack {
			ack = controller.Ack{Pod: pod.Name}
		}
		if s.acks[pod.Name] != ack {
			s.acks[pod.Name] = ack
			for _, r := range s.w.replicas {
				r.news = true // an acknowledgement wakes the controller
			}
		}
	}
}

// server is the replica that a pod's sidecar is connected to; nil: none.
func (s *sidecars) server(pod *corev1.Pod) *replica {
	up := pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil && pod.Labels[v1alpha1.InjectedLabel] == "true"
	if s.cut || !up || s.w.kubelets.down[pod.Spec.NodeName] {
		return nil
	}
	first := ordinal(pod.Name) % 2
	for _, r := range []*replica{s.w.replicas[first], s.w.replicas[1-first]} {
		if !r.down {
			return r
		}
	}
	return nil
}

// Unheard implements controller.Sidecars.
func (s *sidecars) Unheard() string { return "" }

// Acks implements controller.Sidecars.
func (s *sidecars) Acks(_ types.NamespacedName, revision string) []controller.Ack {
	var out []controller.Ack
	for _, o := range s.w.api.all(pods) {
		pod := o.(*corev1.Pod)
		if hashOf(pod) == revision && s.server(pod) != nil {
			ack, ok := s.acks[pod.Name]
			if !ok {
				ack.Pod = pod.Name
			}
			out = append(out, ack)
		}
	}
	return out
}

// analysis says what the history wants about each version. As the real one it judges no rollout before it
// has begun, and forgets nothing.
type analysis struct {
	w        *world
	verdicts map[string]v1alpha1.Verdict
	// told is the last verdict that the controller was given, about which version.
	told    v1alpha1.Verdict
	toldFor string
	// tamper, if set, changes what the controller hears: a bug that is built in.
	tamper func(v1alpha1.Verdict) v1alpha1.Verdict
}

// Verdict implements controller.Analysis.
func (a *analysis) Verdict(_ types.NamespacedName, s *v1alpha1.RolloutStatus) (v1alpha1.Verdict, string) {
	a.told, a.toldFor = v1alpha1.Verdict{}, s.Candidate.Hash
	judged := s.Phase == v1alpha1.PhaseStepping || s.Phase == v1alpha1.PhasePaused || s.Phase == v1alpha1.PhasePromoting
	if s.Candidate.Hash != "" && judged {
		a.told = a.verdicts[s.Candidate.Hash]
	}
	if a.tamper != nil {
		return a.tamper(*a.told.DeepCopy()), ""
	}
	return *a.told.DeepCopy(), ""
}

// Forget implements controller.Analysis.
func (a *analysis) Forget(types.NamespacedName) {}
