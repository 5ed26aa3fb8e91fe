// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/internal/playedapi"
	"github.com/headgate/headgate/webhook"
	xdsserver "github.com/headgate/headgate/xds/server"
)

// The cluster in which the controller is measured: each workload has ten pods of its stable revision, and
// those that are rolled out one of the candidate.
const (
	workloads  = 1000
	rolledOut  = 100
	stablePods = 10
)

// BenchmarkReconcile measures one pass over 1,000 workloads, of which 100 are rolled out and wait for a
// verdict: what the leader does each second for the 100, and after a restart for all. Nothing changes, so writes/op must
// be zero. Of looks, which are every five seconds, each is news for the record of each rollout. heap-B is the
// memory of all this: caches, what all sidecars are told, what the controller remembers; there are no connections. Only
// the API server is played.
func BenchmarkReconcile(b *testing.B) {
	all, objects := thousandWorkloads(b)
	before := playedapi.Heap()
	mgr := manager(b, objects)
	r := reconciler(mgr.GetClient())
	r.Sidecars = obedient{mgr.GetClient(), stablePods}
	feeder := &Feeder{Reconciler: r, Sink: xdsServer{xdsserver.New(b.Context(), xdsserver.Config{})}}
	for _, key := range all {
		if _, err := feeder.Reconcile(b.Context(), ctrl.Request{NamespacedName: key}); err != nil {
			b.Fatal(err)
		}
	}
	passOver(b, r, all)
	memory := playedapi.Heap() - before
	for _, bench := range []struct {
		name  string
		keys  []types.NamespacedName
		looks Analysis
	}{
		{"workloads=1000", all, nil},
		{"rollouts=100", all[:rolledOut], nil},
		{"looks=100", all[:rolledOut], &curious{}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			counting := &writeCounter{Client: mgr.GetClient()}
			r.Client, r.Looks = counting, bench.looks
			if bench.looks != nil { // the first one is not at the moment in which the rollout began
				r.Now = func() time.Time { return at(105) }
			}
			b.ReportAllocs()
			for b.Loop() {
				passOver(b, r, bench.keys)
			}
			b.ReportMetric(float64(counting.writes)/float64(b.N), "writes/op")
			b.ReportMetric(float64(memory), "heap-B")
		})
	}
	runtime.KeepAlive(feeder) // it is measured
}

// thousandWorkloads are the cluster; those that are rolled out come first.
func thousandWorkloads(b *testing.B) (all []types.NamespacedName, objects []client.Object) {
	b.Helper()
	rest, stepping := settled(b, v1alpha1.PhaseIdle, stablePods, atRest(b, stablePods)), settled(b, v1alpha1.PhaseStepping, stablePods, inFirstStep(b, stablePods))
	objects = []client.Object{
		&v1alpha1.ClusterRolloutPolicy{ObjectMeta: metav1.ObjectMeta{Name: "default"}, Spec: *onePod()},
		node("n1", corev1.ConditionTrue),
	}
	for i := range workloads {
		template := rest
		if i < rolledOut {
			template = stepping
		}
		ns := fmt.Sprintf("shop-%d", i)
		objects = append(objects, moved(b, template, ns)...)
		all = append(all, types.NamespacedName{Namespace: ns, Name: "web"})
	}
	return all, objects
}

func passOver(b *testing.B, r *Reconciler, keys []types.NamespacedName) {
	b.Helper()
	for _, key := range keys {
		if _, err := r.Reconcile(b.Context(), ctrl.Request{NamespacedName: key}); err != nil {
			b.Fatal(err)
		}
	}
}

// xdsServer keeps what the sidecars would be told.
type xdsServer struct{ *xdsserver.Server }

// Forget implements Configurations. Nothing is forgotten here.
func (xdsServer) Forget(string, string, string) {}

// curious is an analysis that has seen more requests whenever it is asked.
type curious struct{ seen int64 }

// Verdict implements Analysis.
func (c *curious) Verdict(types.NamespacedName, *v1alpha1.RolloutStatus) (v1alpha1.Verdict, string) {
	c.seen++
	return v1alpha1.Verdict{Result: v1alpha1.ResultUndecided, Evidence: &v1alpha1.Evidence{CandidateRequests: c.seen}}, ""
}

// Forget implements Analysis.
func (*curious) Forget(types.NamespacedName) {}

// typical makes a pod as large as those of many applications, with what the webhook puts in.
func typical(b *testing.B) func(*corev1.Pod) {
	b.Helper()
	text, err := os.ReadFile("../webhook/testdata/inject/typical.out.yaml")
	if err != nil {
		b.Fatal(err)
	}
	var t corev1.Pod
	if err := yaml.Unmarshal(text, &t); err != nil {
		b.Fatal(err)
	}
	return func(pod *corev1.Pod) {
		replaceSpec(pod, *t.Spec.DeepCopy())
		pod.Annotations[v1alpha1.InjectionAnnotation] = t.Annotations[v1alpha1.InjectionAnnotation]
	}
}

// onePod is a policy whose candidates have one pod, however large stable is.
func onePod() *v1alpha1.RolloutPolicySpec {
	return &v1alpha1.RolloutPolicySpec{Steps: []v1alpha1.Step{{Weight: 10, Replicas: ptr(intstr.FromInt32(1))}}}
}

// atRest is the namespace shop with the workload web, whose stable revision serves with so many pods.
func atRest(b *testing.B, pods int32) []client.Object {
	b.Helper()
	d := deployment()
	d.Spec.Template, d.Spec.Replicas = template("v1"), ptr(pods)
	d.Status = appsv1.DeploymentStatus{
		ObservedGeneration: d.Generation, Replicas: pods, UpdatedReplicas: pods, ReadyReplicas: pods, AvailableReplicas: pods,
	}
	objects := []client.Object{namespace("shop", true), &v1alpha1.ClusterRolloutPolicy{}, d, sized(replicaSet(stableHash, "v1", pods), pods)}
	objects[1] = &v1alpha1.ClusterRolloutPolicy{ObjectMeta: metav1.ObjectMeta{Name: "default"}, Spec: *onePod()}
	for i := range pods {
		objects = append(objects, podOf(stableHash, fmt.Sprintf("s%d", i), fmt.Sprintf("10.0.0.%d", 1+i), typical(b), gateOpen, set(corev1.PodReady, corev1.ConditionTrue, 7)))
	}
	r := record()
	r.Status = v1alpha1.RolloutStatus{
		DeploymentUID: d.UID, Phase: v1alpha1.PhaseIdle, Stable: v1alpha1.Revision{Hash: stableHash, Template: webhook.TemplateDigest(template("v1"))},
	}
	return append(objects, r)
}

// inFirstStep is the same after an update to v2, with the candidate's pod.
func inFirstStep(b *testing.B, pods int32) []client.Object {
	b.Helper()
	var out []client.Object
	for _, o := range atRest(b, pods) {
		if d, is := o.(*appsv1.Deployment); is {
			next := d.DeepCopy()
			next.Spec.Template = template("v2")
			held := webhook.DecideHold(webhook.HoldInput{
				Old: d, New: next, Policy: onePod(), ReplicaSets: []*appsv1.ReplicaSet{sized(replicaSet(stableHash, "v1", pods), pods)},
				Split: webhook.SplitState{Possible: true}, Now: at(90),
			}).Deployment
			held.Status.UpdatedReplicas, held.Status.Replicas = 1, pods+1
			o = held
		}
		out = append(out, o)
	}
	return append(out, sized(replicaSet(candidateHash, "v2", 1), pods), podOf(candidateHash, "c0", "10.0.1.1", typical(b)))
}

// sized gives a ReplicaSet all the pods that it wants, of a Deployment that wants so many.
func sized(rs *appsv1.ReplicaSet, n int32) *appsv1.ReplicaSet {
	rs.Annotations[desiredAnnotation] = fmt.Sprint(n)
	rs.Status = appsv1.ReplicaSetStatus{Replicas: *rs.Spec.Replicas, ReadyReplicas: *rs.Spec.Replicas, AvailableReplicas: *rs.Spec.Replicas}
	return rs
}

// settled are the objects after as many passes as the Reconciler finds something to write in, which must
// lead to this phase.
func settled(b *testing.B, phase v1alpha1.Phase, pods int32, objects []client.Object) []client.Object {
	b.Helper()
	log := &writes{}
	c := cluster(b, objects...).WithInterceptorFuncs(log.funcs()).Build()
	r := reconciler(c)
	r.Sidecars = obedient{c, pods}
	for range 20 {
		log.done = nil
		if _, err := r.Reconcile(b.Context(), ctrl.Request{NamespacedName: webKey}); err != nil {
			b.Fatal(err)
		}
		if len(log.done) == 0 {
			for _, o := range objects {
				stored(b, c, o)
			}
			if s := stored(b, c, record()).Status; s.Phase != phase || s.WeightInForce != s.Weight {
				b.Fatalf("the controller comes to rest at %+v", s)
			}
			return objects
		}
	}
	b.Fatalf("the controller does not come to rest, and goes on to %v", log.done)
	return nil
}

// moved are copies of the objects in another namespace, with owners of their own.
func moved(b *testing.B, objects []client.Object, namespace string) []client.Object {
	b.Helper()
	rename := strings.NewReplacer(`"shop"`, `"`+namespace+`"`, "d-uid", "d-uid-"+namespace, `"rs-`, `"rs-`+namespace+"-")
	var out []client.Object
	for _, o := range objects {
		if _, is := o.(*v1alpha1.ClusterRolloutPolicy); is {
			continue
		}
		text, err := json.Marshal(o)
		if err != nil {
			b.Fatal(err)
		}
		c, ok := reflect.New(reflect.TypeOf(o).Elem()).Interface().(client.Object)
		if !ok {
			b.Fatalf("%T is no object", o)
		}
		if err := json.Unmarshal([]byte(rename.Replace(string(text))), c); err != nil {
			b.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

// manager has caches like the control plane's, filled with these objects.
func manager(b *testing.B, objects []client.Object) ctrl.Manager {
	b.Helper()
	kinds := []client.Object{
		&appsv1.Deployment{}, &appsv1.ReplicaSet{}, &corev1.Pod{}, &corev1.Service{}, &corev1.Namespace{}, &corev1.Node{},
		&autoscalingv2.HorizontalPodAutoscaler{}, &v1alpha1.Rollout{}, &v1alpha1.RolloutPolicy{}, &v1alpha1.ClusterRolloutPolicy{},
	}
	ctrl.SetLogger(logr.Discard())
	s := scheme(b)
	mgr, err := ctrl.NewManager(playedapi.Serve(b, s, kinds, objects), ctrl.Options{
		Scheme: s, MapperProvider: playedapi.Mapper(s), Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
		Cache: cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, o := range []client.Object{&appsv1.ReplicaSet{}, &corev1.Pod{}} {
		if err := mgr.GetFieldIndexer().IndexField(b.Context(), o, webhook.OwnerIndex, owners); err != nil {
			b.Fatal(err)
		}
	}
	playedapi.Start(b, mgr, kinds)
	return mgr
}

// obedient sidecars have acknowledged what the record says.
type obedient struct {
	client.Reader

	pods int32 // of stable
}

func (o obedient) Unheard() string { return "" }

func (o obedient) Acks(key types.NamespacedName, revision string) []Ack {
	var r v1alpha1.Rollout
	if err := o.Get(context.Background(), key, &r); err != nil || r.Status.Candidate.Hash == "" {
		return nil
	}
	if revision == r.Status.Candidate.Hash {
		return []Ack{{Pod: "c0", Peer: r.Status.Stable.Hash, PeerWeight: 100 - r.Status.Weight}}
	}
	var out []Ack
	for i := range o.pods {
		out = append(out, Ack{Pod: fmt.Sprintf("s%d", i), Peer: r.Status.Candidate.Hash, PeerWeight: r.Status.Weight})
	}
	return out
}

// writeCounter reads, and only counts writes.
type writeCounter struct {
	client.Client

	writes int
}

func (w *writeCounter) count() error { w.writes++; return nil }

func (w *writeCounter) Create(context.Context, client.Object, ...client.CreateOption) error {
	return w.count()
}

func (w *writeCounter) Update(context.Context, client.Object, ...client.UpdateOption) error {
	return w.count()
}

func (w *writeCounter) Patch(context.Context, client.Object, client.Patch, ...client.PatchOption) error {
	return w.count()
}

func (w *writeCounter) Delete(context.Context, client.Object, ...client.DeleteOption) error {
	return w.count()
}

func (w *writeCounter) Status() client.SubResourceWriter {
	return statusCounter{w.Client.Status(), w}
}

type statusCounter struct {
	client.SubResourceWriter

	counter *writeCounter
}

func (s statusCounter) Update(context.Context, client.Object, ...client.SubResourceUpdateOption) error {
	return s.counter.count()
}

func (s statusCounter) Patch(context.Context, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
	return s.counter.count()
}
