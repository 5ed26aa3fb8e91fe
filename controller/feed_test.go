// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/xds"
)

// service selects shop/web.
func service(name string, ports ...corev1.ServicePort) corev1.Service {
	return corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: ports},
	}
}

func servicePortTo(name string, target intstr.IntOrString) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: 80, TargetPort: target}
}

func captures(ports ...v1alpha1.CapturedPort) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Annotations[v1alpha1.InjectionAnnotation] = v1alpha1.Injection{Workload: "web", Revision: "x", Ports: ports}.String()
	}
}

// view is shop/web with these pods, in the rollout of record().
func view(pods ...*corev1.Pod) *workload {
	w := &workload{deployment: deployment(), record: record(), pods: map[string][]*corev1.Pod{}, nodesReady: map[string]bool{"n1": true, "down": false}}
	for _, pod := range pods {
		hash := pod.Labels["pod-template-hash"]
		w.pods[hash] = append(w.pods[hash], pod)
	}
	return w
}

func TestConfigurationsFollowTheRecord(t *testing.T) {
	ports := func(peer uint32) []xds.Port { return []xds.Port{{Number: 8080, Peer: peer}} }
	rest := func(hash string) xds.Workload {
		return xds.Workload{Namespace: "shop", Name: "web", Revision: hash, Ports: ports(0)}
	}
	split := func(hash string, s xds.Split) xds.Workload {
		return xds.Workload{Namespace: "shop", Name: "web", Revision: hash, Ports: ports(8080), Split: &s}
	}
	status := func(change func(*v1alpha1.RolloutStatus)) func(*workload) {
		return func(w *workload) { change(&w.record.Status) }
	}
	allToStable := xds.Split{Peer: stableHash, PeerIsStable: true, PeerWeight: 100, Endpoints: []string{"10.0.0.1"}}
	over := allToStable
	over.Over = true
	phase := func(p v1alpha1.Phase, weight int32) func(*workload) {
		return status(func(s *v1alpha1.RolloutStatus) { s.Phase, s.Weight = p, weight })
	}
	none := xds.Split{Peer: candidateHash, Endpoints: []string{"10.0.0.2"}}
	for name, tc := range map[string]struct {
		change func(*workload)
		want   []xds.Workload
	}{
		// Only when nobody judges it any more: what is handed on counts as the candidate's.
		"a candidate that was rejected hands on what it is sent": {phase(v1alpha1.PhaseQuarantined, 0), []xds.Workload{split(stableHash, none), split(candidateHash, over)}},
		"at once": {phase(v1alpha1.PhaseRollingBack, 0), []xds.Workload{split(stableHash, none), split(candidateHash, over)}},
		"but not while stable can't carry all": {phase(v1alpha1.PhaseRollingBack, 10), []xds.Workload{
			split(stableHash, xds.Split{Peer: candidateHash, PeerWeight: 10, Endpoints: []string{"10.0.0.2"}}),
			split(candidateHash, xds.Split{Peer: stableHash, PeerIsStable: true, PeerWeight: 90, Endpoints: []string{"10.0.0.1"}}),
		}},
		"one that starts does not":           {phase(v1alpha1.PhaseStarting, 0), []xds.Workload{split(stableHash, none), split(candidateHash, allToStable)}},
		"nor one in a step without requests": {phase(v1alpha1.PhaseStepping, 0), []xds.Workload{split(stableHash, none), split(candidateHash, allToStable)}},
		"nor one that is paused there":       {phase(v1alpha1.PhasePaused, 0), []xds.Workload{split(stableHash, none), split(candidateHash, allToStable)}},
		"nor one that goes out":              {phase(v1alpha1.PhasePromoting, 0), []xds.Workload{split(stableHash, none), split(candidateHash, allToStable)}},
		"both arms split": {func(*workload) {}, []xds.Workload{
			split(stableHash, xds.Split{Peer: candidateHash, PeerWeight: 10, Endpoints: []string{"10.0.0.2"}}),
			split(candidateHash, xds.Split{Peer: stableHash, PeerIsStable: true, PeerWeight: 90, Endpoints: []string{"10.0.0.1"}}),
		}},
		"no record: at rest": {func(w *workload) { w.record = nil }, []xds.Workload{rest(stableHash), rest(candidateHash)}},
		"the candidate is none any more": {status(func(s *v1alpha1.RolloutStatus) { s.Candidate = v1alpha1.Revision{} }), []xds.Workload{
			rest(stableHash), split(candidateHash, over),
		}},
		"nor is one of which a pod was out": {func(w *workload) {
			w.record.Status.Candidate = v1alpha1.Revision{}
			set(v1alpha1.GateCondition, corev1.ConditionTrue, 5)(w.pods[candidateHash][0])
		}, []xds.Workload{rest(stableHash), rest(candidateHash)}},
		"no stable revision yet: at rest":   {status(func(s *v1alpha1.RolloutStatus) { s.Stable = v1alpha1.Revision{} }), []xds.Workload{rest(stableHash), rest(candidateHash)}},
		"another Deployment's record: rest": {status(func(s *v1alpha1.RolloutStatus) { s.DeploymentUID = "old" }), []xds.Workload{rest(stableHash), rest(candidateHash)}},
		"another one is the candidate": {status(func(s *v1alpha1.RolloutStatus) { s.Candidate.Hash = "ccc" }), []xds.Workload{
			split(stableHash, xds.Split{Peer: "ccc", PeerWeight: 10}), split(candidateHash, over),
		}},
		"it is about to go out natively": {func(w *workload) {
			w.record.Status.Candidate = v1alpha1.Revision{}
			w.replicaSets = append(w.replicaSets, replicaSet(candidateHash, "v2", 1))
			w.deployment.Spec.Template = *w.replicaSets[0].Spec.Template.DeepCopy()
		}, []xds.Workload{rest(stableHash), rest(candidateHash)}},
		"pods without sidecar have no configuration": {func(w *workload) { uninjected(w.pods[candidateHash][0]) }, []xds.Workload{
			split(stableHash, xds.Split{Peer: candidateHash, PeerWeight: 10}),
		}},
		"no word before an address tells of IPv6": {func(w *workload) { w.pods[candidateHash][0] = podOf(candidateHash, "c1", "") }, []xds.Workload{
			split(stableHash, xds.Split{Peer: candidateHash, PeerWeight: 10}),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := view(podOf(stableHash, "s1", "10.0.0.1"), podOf(candidateHash, "c1", "10.0.0.2"))
			tc.change(w)
			for i := range tc.want { // a revision that is not captured has no corresponding port
				if s := tc.want[i].Split; s != nil && len(s.Endpoints) == 0 {
					tc.want[i].Ports = ports(0)
				}
			}
			if d := cmp.Diff(tc.want, w.configurations(nil)); d != "" {
				t.Errorf("configurations (-want +got):\n%s", d)
			}
		})
	}
}

func TestWeightsOfBothArmsSumTo100(t *testing.T) {
	for weight := range int32(101) {
		w := view(podOf(stableHash, "s1", "10.0.0.1"), podOf(candidateHash, "c1", "10.0.0.2"))
		w.record.Status.Weight = weight
		share := map[string]uint32{}
		for _, x := range w.configurations(nil) {
			share[x.Split.Peer] = x.Split.PeerWeight
			if err := x.Validate(); err != nil {
				t.Errorf("weight %d: %v", weight, err)
			}
		}
		if share[candidateHash] != uint32(weight) || share[stableHash]+share[candidateHash] != 100 {
			t.Errorf("weight %d: the arms say %v", weight, share)
		}
	}
}

func TestEndpointsAreReadyButForTheGate(t *testing.T) {
	pod := func(ip string, change ...func(*corev1.Pod)) *corev1.Pod {
		return podOf(candidateHash, "c"+ip, ip, change...)
	}
	w := view(
		pod("10.0.0.9"), pod("10.0.0.1", gateOpen),
		pod("10.0.0.2", terminating), pod("10.0.0.3", onNode("down")), pod("10.0.0.7", onNode("deleted")), pod("10.0.0.4", uninjected),
		pod("10.0.0.5", set(corev1.ContainersReady, corev1.ConditionFalse, 9)), pod(""),
		pod("10.0.0.6", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
		pod("10.0.0.9"), // a pod network may give an address again before the old pod is gone
	)
	if d := cmp.Diff([]string{"10.0.0.1", "10.0.0.9"}, w.endpoints(candidateHash)); d != "" {
		t.Errorf("endpoints (-want +got):\n%s", d)
	}
}

func TestPortsCorrespondThroughServices(t *testing.T) {
	names := func(number int32, names ...string) v1alpha1.CapturedPort {
		return v1alpha1.CapturedPort{Names: names, Port: number}
	}
	named := func(name string, number int32) v1alpha1.CapturedPort {
		if name == "" {
			return names(number)
		}
		return names(number, name)
	}
	webAndAdmin := []corev1.Service{service("web", servicePortTo("http", intstr.FromString("web"))), service("admin", servicePortTo("http", intstr.FromString("admin")))}
	byName, byNumber := intstr.FromString, intstr.FromInt32
	onlyStable := service("web", servicePortTo("http", byNumber(8080)))
	onlyStable.Spec.Selector = map[string]string{"pod-template-hash": stableHash}
	preview := service("web-preview", servicePortTo("http", byNumber(8080)))
	preview.Spec.Selector, preview.Annotations = onlyStable.Spec.Selector, map[string]string{v1alpha1.PreviewAnnotation: "true"}
	onlyCandidate := service("web-next", servicePortTo("http", byNumber(8080)))
	onlyCandidate.Spec.Selector = map[string]string{"pod-template-hash": candidateHash}
	udp := servicePortTo("dns", byNumber(8080))
	udp.Protocol = corev1.ProtocolUDP
	two := []corev1.Service{service("web", servicePortTo("http", byNumber(8080))), service("admin", servicePortTo("http", byNumber(9090)))}
	for name, tc := range map[string]struct {
		stable, candidate []v1alpha1.CapturedPort
		services          []corev1.Service
		want              []xds.Port
		why               string // requests are not split
	}{
		"no Service: the same number": {
			[]v1alpha1.CapturedPort{named("", 8080), named("", 9090)}, []v1alpha1.CapturedPort{named("", 8080)}, nil,
			[]xds.Port{{Number: 8080, Peer: 8080}, {Number: 9090}}, "no port of its pods corresponds to port 9090 of stable's",
		},
		"numbers differ, the Service targets the name": {
			[]v1alpha1.CapturedPort{named("http", 8080)}, []v1alpha1.CapturedPort{named("metrics", 8080), named("http", 8081)},
			[]corev1.Service{service("web", servicePortTo("web", byName("http")))},
			[]xds.Port{{Number: 8080, Peer: 8081}}, "",
		},
		"a port with two names, in another order there": {
			[]v1alpha1.CapturedPort{names(8080, "admin", "web")}, []v1alpha1.CapturedPort{names(8081, "web", "admin")}, webAndAdmin,
			[]xds.Port{{Number: 8080, Peer: 8081}}, "",
		},
		"a port with two names, one of which is gone there": {
			[]v1alpha1.CapturedPort{names(8080, "admin", "web")}, []v1alpha1.CapturedPort{named("web", 8081)}, webAndAdmin,
			[]xds.Port{{Number: 8080, Peer: 8081}}, "",
		},
		"a port with two names, which are two ports there: nobody knows which is meant": {
			[]v1alpha1.CapturedPort{names(8080, "admin", "web")}, []v1alpha1.CapturedPort{named("admin", 8081), named("web", 8080)}, webAndAdmin,
			[]xds.Port{{Number: 8080}}, "no port of its pods corresponds to port 8080 of stable's",
		},
		"two Services call their port http": {
			[]v1alpha1.CapturedPort{named("", 8080), named("", 9090)}, []v1alpha1.CapturedPort{named("", 8080), named("", 9090)}, two,
			[]xds.Port{{Number: 8080, Peer: 8080}, {Number: 9090, Peer: 9090}}, "",
		},
		"a Service without a target port means its own": {
			[]v1alpha1.CapturedPort{named("", 80)}, []v1alpha1.CapturedPort{named("", 80)}, []corev1.Service{service("web", corev1.ServicePort{Port: 80})},
			[]xds.Port{{Number: 80, Peer: 80}}, "",
		},
		"the Service does not select the other revision": {
			[]v1alpha1.CapturedPort{named("", 8080)}, []v1alpha1.CapturedPort{named("", 8080)}, []corev1.Service{onlyStable},
			[]xds.Port{{Number: 8080}}, "Service web does not select its pods by their labels",
		},
		"one Service selects both, another one stable only": {
			[]v1alpha1.CapturedPort{named("", 8080)}, []v1alpha1.CapturedPort{named("", 8080)}, []corev1.Service{service("all", servicePortTo("http", byNumber(8080))), onlyStable},
			[]xds.Port{{Number: 8080}}, "Service web does not select its pods by their labels",
		},
		"one Service selects both, another one the candidate only": {
			[]v1alpha1.CapturedPort{named("", 8080)}, []v1alpha1.CapturedPort{named("", 8080)}, []corev1.Service{service("all", servicePortTo("http", byNumber(8080))), onlyCandidate},
			[]xds.Port{{Number: 8080, Peer: 8080}}, "",
		},
		"one Service selects both, a preview has not been moved yet": {
			[]v1alpha1.CapturedPort{named("", 8080)}, []v1alpha1.CapturedPort{named("", 8080)}, []corev1.Service{service("all", servicePortTo("http", byNumber(8080))), preview},
			[]xds.Port{{Number: 8080, Peer: 8080}}, "",
		},
		"a Service for UDP says nothing": {
			[]v1alpha1.CapturedPort{named("", 8080)}, []v1alpha1.CapturedPort{named("", 8080)}, []corev1.Service{service("dns", udp)},
			[]xds.Port{{Number: 8080, Peer: 8080}}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := view(podOf(stableHash, "s1", "10.0.0.1", captures(tc.stable...)), podOf(candidateHash, "c1", "10.0.0.2", captures(tc.candidate...)))
			if d := cmp.Diff(tc.want, w.configurations(tc.services)[0].Ports); d != "" {
				t.Errorf("stable's ports (-want +got):\n%s", d)
			}
			if why := whyNotSplit(w.pods[stableHash], w.pods[candidateHash], tc.services, anyPort); why != tc.why {
				t.Errorf("not split because %q, want %q", why, tc.why)
			}
			if why := whyNotSplit(w.pods[stableHash], w.pods[candidateHash], tc.services, ledTo); why != tc.why && len(tc.services) > 0 || why != "" && len(tc.services) == 0 {
				t.Errorf("a Service's port is not split because %q, want %q", why, tc.why)
			}
		})
	}
}

// What goes to a port that is not split is not judged, however much the others tell: a version that has given its port another
// name, which its Service does not know, would be promoted on them, and then nobody answers there.
func TestNothingIsPromotedForPortsThatAreNotSplit(t *testing.T) {
	renamed := captures(v1alpha1.CapturedPort{Port: 8080, Names: []string{"web"}})
	svc := service("web", servicePortTo("http", intstr.FromString("http")))
	const why = "some requests can't go to c, and are not judged: no port of its pods corresponds to port 8080 of stable's"
	for name, tc := range map[string]struct {
		given    v1alpha1.Verdict
		inForce  int32
		services []client.Object
		want     v1alpha1.Verdict
	}{
		"accepted":               {v1alpha1.Verdict{Result: v1alpha1.ResultPass}, 10, []client.Object{&svc}, v1alpha1.Verdict{Result: v1alpha1.ResultHold, Cause: "NoSplit", Message: why}},
		"too little data":        {v1alpha1.Verdict{Result: v1alpha1.ResultInconclusive}, 10, []client.Object{&svc}, v1alpha1.Verdict{Result: v1alpha1.ResultHold, Cause: "NoSplit", Message: why}},
		"nothing known yet":      {v1alpha1.Verdict{Result: v1alpha1.ResultUndecided}, 10, []client.Object{&svc}, v1alpha1.Verdict{Result: v1alpha1.ResultHold, Cause: "NoSplit", Message: why}},
		"failed by the others":   {v1alpha1.Verdict{Result: v1alpha1.ResultFail}, 10, []client.Object{&svc}, v1alpha1.Verdict{Result: v1alpha1.ResultFail}},
		"no weight yet":          {v1alpha1.Verdict{Result: v1alpha1.ResultUndecided}, 0, []client.Object{&svc}, v1alpha1.Verdict{Result: v1alpha1.ResultUndecided}},
		"nobody leads there":     {v1alpha1.Verdict{Result: v1alpha1.ResultPass}, 10, nil, v1alpha1.Verdict{Result: v1alpha1.ResultPass}},
		"seen by the judge, too": {v1alpha1.Verdict{Result: v1alpha1.ResultHold, Cause: "NoSplit", Message: "far below"}, 10, []client.Object{&svc}, v1alpha1.Verdict{Result: v1alpha1.ResultHold, Cause: "NoSplit", Message: "far below; no port of its pods corresponds to port 8080 of stable's"}},
	} {
		t.Run(name, func(t *testing.T) {
			rec := record()
			rec.Status.WeightInForce, rec.Status.Candidate.Hash = tc.inForce, "c"
			r, w, _ := worldOf(t, append([]client.Object{replicaSet(stableHash, "v1", 4), replicaSet("c", "v2", 1), rec,
				podOf(stableHash, "s1", "10.0.0.1"), podOf("c", "c1", "10.0.0.2", renamed)}, tc.services...)...)
			if d := cmp.Diff(tc.want, r.explained(t.Context(), w, tc.given)); d != "" {
				t.Errorf("the verdict (-want +got):\n%s", d)
			}
		})
	}
}

// Pods that somebody left when he deleted stable's ReplicaSet serve, and split, as before.
func TestPodsWithoutTheirReplicaSetAreToldTheirWeight(t *testing.T) {
	_, w, _ := worldOf(t, replicaSet(candidateHash, "v2", 1), record(), podOf(stableHash, "s1", "10.0.0.1", orphan), podOf(candidateHash, "c1", "10.0.0.2"))
	weights := map[string]uint32{}
	for _, x := range w.configurations(nil) {
		weights[x.Revision] = x.Split.PeerWeight
		if len(x.Split.Endpoints) != 1 {
			t.Errorf("%s knows %d peers", x.Revision, len(x.Split.Endpoints))
		}
	}
	if d := cmp.Diff(map[string]uint32{stableHash: 10, candidateHash: 90}, weights); d != "" {
		t.Errorf("shares of the other revision (-want +got):\n%s", d)
	}
}

// Envoy ends the connections of a listener that changes, so nobody's Service may change one under running pods.
func TestProtocolsAreThoseOfTheOldestPod(t *testing.T) {
	speaks := func(p v1alpha1.PortProtocol) func(*corev1.Pod) {
		return captures(v1alpha1.CapturedPort{Port: 8080, Protocol: p})
	}
	made := func(seconds int) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(at(seconds)) }
	}
	for want, said := range map[xds.Protocol]v1alpha1.PortProtocol{xds.Auto: v1alpha1.ProtocolAuto, xds.HTTP: v1alpha1.ProtocolHTTP, xds.TCP: v1alpha1.ProtocolTCP} {
		other := v1alpha1.ProtocolHTTP
		if said == other {
			other = v1alpha1.ProtocolTCP
		}
		w := view(podOf(stableHash, "s1", "10.0.0.1", speaks(other), made(2)), podOf(stableHash, "s2", "10.0.0.2", speaks(said), made(1)))
		later := servicePortTo("mysql", intstr.FromInt32(8080))
		got := w.configurations([]corev1.Service{service("later", later)})[0].Ports
		if d := cmp.Diff([]xds.Port{{Number: 8080, Protocol: want}}, got); d != "" {
			t.Errorf("the oldest pod was told %s (-want +got):\n%s", said, d)
		}
	}
}

func TestIPv6IsSeen(t *testing.T) {
	dual := podOf(stableHash, "s1", "10.0.0.1", func(p *corev1.Pod) { p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "fd00::1"}) })
	if got := view(dual).configurations(nil); len(got) != 1 || !got[0].IPv6 {
		t.Errorf("dual stack pods are configured as %+v", got)
	}
	if got := view(podOf(stableHash, "s1", "10.0.0.1")).configurations(nil); len(got) != 1 || got[0].IPv6 {
		t.Errorf("pods with IPv4 alone are configured as %+v", got)
	}
}

// sink is what sidecars are told; it refuses one revision.
type sink struct {
	told    map[string]xds.Workload
	refuses string
}

var errRefused = errors.New("refused")

func (s *sink) Set(w xds.Workload) error {
	if w.Revision == s.refuses {
		return errRefused
	}
	s.told[w.Revision] = w
	return nil
}

func (s *sink) Forget(_, _, revision string) { delete(s.told, revision) }

func (s *sink) revisions() []string {
	var out []string
	for hash := range s.told {
		out = append(out, hash)
	}
	slices.Sort(out)
	return out
}

func TestFeederTellsAndForgets(t *testing.T) {
	stable, candidate, web := podOf(stableHash, "s1", "10.0.0.1"), podOf(candidateHash, "c1", "10.0.0.2"), deployment()
	c := cluster(t, namespace("shop", true), web, record(), stable, candidate,
		replicaSet(stableHash, "v1", 4), replicaSet(candidateHash, "v2", 1)).Build()
	s := &sink{told: map[string]xds.Workload{}}
	f := &Feeder{Reconciler: reconciler(c), Sink: s}
	for _, step := range []struct {
		when string
		gone client.Object
		want []string
	}{
		{"both revisions have pods", nil, []string{stableHash, candidateHash}},
		{"the candidate's last pod is gone", candidate, []string{stableHash}},
		{"the Deployment is gone", web, nil},
	} {
		if step.gone != nil {
			if err := c.Delete(t.Context(), step.gone); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.Reconcile(t.Context(), ctrl.Request{NamespacedName: webKey}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(step.want, s.revisions()); d != "" {
			t.Errorf("%s: revisions told (-want +got):\n%s", step.when, d)
		}
	}
	if len(f.fed) != 0 {
		t.Errorf("the feeder still remembers %v", f.fed)
	}
}

// An update is taken back: the candidate's ReplicaSet is deleted as soon as its pod begins to end, and the pod is asked to its end.
func TestPodsThatEndAreToldToTheEnd(t *testing.T) {
	back := record()
	back.Status.Phase, back.Status.Candidate, back.Status.Weight = v1alpha1.PhaseIdle, v1alpha1.Revision{}, 0
	gone, ends := replicaSet(candidateHash, "v2", 0), podOf(candidateHash, "c1", "10.0.0.2", terminating)
	web := deployment()
	web.Spec.Template = template("v1")
	c := cluster(t, namespace("shop", true), web, back, replicaSet(stableHash, "v1", 4), gone, podOf(stableHash, "s1", "10.0.0.1"), ends).Build()
	s := &sink{told: map[string]xds.Workload{}}
	f := &Feeder{Reconciler: reconciler(c), Sink: s}
	feed := func() ctrl.Result {
		t.Helper()
		result, err := f.Reconcile(t.Context(), ctrl.Request{NamespacedName: webKey})
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	feed()
	want := s.told[candidateHash]
	if want.Split == nil || !want.Split.Over {
		t.Fatalf("while its ReplicaSet is there it is told %+v", want)
	}
	if err := c.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if again := feed(); again.RequeueAfter == 0 {
			t.Error("nobody looks when it is gone")
		}
	}
	if d := cmp.Diff(want, s.told[candidateHash]); d != "" {
		t.Errorf("without its ReplicaSet it is told (-want +got):\n%s", d)
	}
	ends.Finalizers = nil
	if err := c.Update(t.Context(), ends); err != nil {
		t.Fatal(err)
	}
	feed()
	if _, told := s.told[candidateHash]; told || len(f.fed[webKey]) != 1 {
		t.Errorf("the pod is gone, and the feeder remembers %v", f.fed)
	}
}

// A machine fails: its node is not ready, then gone, and the candidate's pod on it says that it is ready all the while.
func TestAPodWhoseNodeIsGoneGetsNoRequests(t *testing.T) {
	lost := node("n2", corev1.ConditionTrue)
	c := cluster(t, namespace("shop", true), deployment(), record(), node("n1", corev1.ConditionTrue), lost,
		podOf(stableHash, "s1", "10.0.0.1"), podOf(candidateHash, "c1", "10.0.0.2", onNode("n2")),
		replicaSet(stableHash, "v1", 4), replicaSet(candidateHash, "v2", 1)).WithStatusSubresource(&corev1.Node{}).Build()
	s := &sink{told: map[string]xds.Workload{}}
	f := &Feeder{Reconciler: reconciler(c), Sink: s}
	turn := func(status corev1.ConditionStatus) error {
		lost.Status = node("n2", status).Status
		return c.Status().Update(t.Context(), lost)
	}
	for _, step := range []struct {
		when   string
		do     func() error
		want   []string
		looked time.Duration // again
	}{
		{"the node is ready", func() error { return nil }, []string{"10.0.0.2"}, 0},
		{"it is not ready", func() error { return turn(corev1.ConditionUnknown) }, nil, lookAgain},
		{"it is back", func() error { return turn(corev1.ConditionTrue) }, []string{"10.0.0.2"}, 0},
		{"it is deleted", func() error { return c.Delete(t.Context(), lost) }, nil, lookAgain},
		{"the pod is collected", func() error { return c.Delete(t.Context(), podOf(candidateHash, "c1", "")) }, nil, 0},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		result, err := f.Reconcile(t.Context(), ctrl.Request{NamespacedName: webKey})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(step.want, s.told[stableHash].Split.Endpoints); d != "" || result.RequeueAfter != step.looked {
			t.Errorf("%s: looked at again after %s, want %s; endpoints (-want +got):\n%s", step.when, result.RequeueAfter, step.looked, d)
		}
	}
}

func TestFeederTellsTheOthersWhenOneIsRefused(t *testing.T) {
	c := cluster(t, namespace("shop", true), deployment(), record(), podOf(stableHash, "s1", "10.0.0.1"), podOf(candidateHash, "c1", "10.0.0.2"),
		replicaSet(stableHash, "v1", 4), replicaSet(candidateHash, "v2", 1)).Build()
	for _, refused := range []string{stableHash, candidateHash} {
		s := &sink{told: map[string]xds.Workload{}, refuses: refused}
		f := &Feeder{Reconciler: reconciler(c), Sink: s}
		if _, err := f.Reconcile(t.Context(), ctrl.Request{NamespacedName: webKey}); !errors.Is(err, errRefused) {
			t.Errorf("the error is %v, want it to tell of the refusal", err)
		}
		if got := s.revisions(); len(got) != 1 || got[0] == refused {
			t.Errorf("with %s refused, %v were told", refused, got)
		}
	}
}

// The judge names the port that a NetworkPolicy must let in.
func TestTheJudgeKnowsThePeerPort(t *testing.T) {
	if analysis.PeerPort != xds.PeerPort {
		t.Errorf("the judge speaks of port %d, peers are reached at %d", analysis.PeerPort, xds.PeerPort)
	}
}
