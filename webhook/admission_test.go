// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/internal/playedapi"
	"github.com/headgate/headgate/internal/quantile"
)

// The cluster in which admissions are measured: 1,000 Deployments with 10,000 pods.
const (
	namespacesCached  = 20
	workloadsEach     = 50 // in a namespace
	podsEach          = 10 // of a workload
	nodesCached       = 100
	workloadsAdmitted = 97 // have an update to admit, a prime, so that they are of all namespaces
)

// BenchmarkAdmission measures whole admissions as the API server sees them: HTTP/1.1 over TLS on a
// connection that stays open, to the manager's webhook server, which answers from the manager's own
// caches and indexes. Only the API server that fills those is played. cache-B is the memory that they need.
func BenchmarkAdmission(b *testing.B) {
	c := newCrowd(b)
	config := playedapi.Serve(b, c.scheme, kinds(), c.objects)
	before := playedapi.Heap()
	admit := c.serve(b, config)
	cached := playedapi.Heap() - before
	for name, tc := range map[string]struct {
		path     string
		requests [][]byte
		want     string // in the answer; another decision would be another measurement
	}{
		"a new version of a Deployment": {DeploymentsPath, c.updates, `"row":"` + string(RowCandidate) + `"`},
		"a pod of the stable revision":  {PodsPath, c.pods, `"patch":"`},
	} {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				start := time.Now()
				answer := admit(b, tc.path, tc.requests[i%len(tc.requests)])
				took = append(took, time.Since(start))
				if !strings.Contains(answer, tc.want) {
					b.Fatalf("the answer lacks %s: %s", tc.want, answer)
				}
			}
			quantile.Report(b, took)
			b.ReportMetric(float64(cached), "cache-B")
		})
	}
}

// crowd is everything in that cluster, and what is to be admitted.
type crowd struct {
	scheme        *runtime.Scheme
	objects       []client.Object
	updates, pods [][]byte
}

func newCrowd(b *testing.B) *crowd {
	b.Helper()
	c := &crowd{scheme: runtime.NewScheme()}
	if err := errors.Join(clientgoscheme.AddToScheme(c.scheme), v1alpha1.AddToScheme(c.scheme)); err != nil {
		b.Fatal(err)
	}
	c.add(&v1alpha1.ClusterRolloutPolicy{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	for i := range nodesCached {
		c.add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)}, Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		}})
	}
	typical := readPod(b, "testdata/inject/typical.in.yaml")
	for i := range namespacesCached {
		ns := namespace(map[string]string{v1alpha1.EnabledLabel: "true"})
		ns.Name = fmt.Sprintf("shop-%d", i)
		c.add(ns)
		for j := range workloadsEach {
			c.workload(b, ns.Name, fmt.Sprintf("web-%d", j), typical)
		}
	}
	return c
}

func (c *crowd) add(objects ...client.Object) { c.objects = append(c.objects, objects...) }

// workload adds a Deployment at rest: the stable revision with all its pods injected and ready, two older
// ReplicaSets without pods, a record, a Service, and an HorizontalPodAutoscaler.
func (c *crowd) workload(b *testing.B, ns, name string, typical *corev1.Pod) {
	b.Helper()
	named := metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID(ns + "/" + name), Labels: map[string]string{"app": name}, ResourceVersion: "100"}
	of := func(version string) corev1.PodTemplateSpec {
		t := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}}, Spec: *typical.Spec.DeepCopy()}
		t.Spec.Containers[0].Image = "example.com/web:" + version
		return t
	}
	d := deployment("", func(d *appsv1.Deployment) { d.ObjectMeta, d.Spec.Template = named, of("v3") })
	d.Spec.Selector.MatchLabels = named.Labels
	for _, version := range []string{"v1", "v2", "v3"} {
		rs := replicaSet(version, 0, rsGate(open))
		rs.ObjectMeta.Namespace, rs.ObjectMeta.Name, rs.UID = ns, name+"-h-"+version, named.UID+types.UID("/"+version)
		rs.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))}
		rs.Spec.Template = of(version)
		rs.Spec.Template.Labels["pod-template-hash"] = "h-" + version
		if version == "v3" {
			rs.Status.ReadyReplicas, rs.Status.AvailableReplicas = podsEach, podsEach
			c.podsOf(b, rs)
		}
		c.add(rs)
	}
	record := &v1alpha1.Rollout{ObjectMeta: named, Status: v1alpha1.RolloutStatus{
		DeploymentUID: d.UID, Phase: v1alpha1.PhaseIdle, Stable: v1alpha1.Revision{Hash: "h-v3", Template: TemplateDigest(of("v3"))},
	}}
	service := &corev1.Service{ObjectMeta: named, Spec: corev1.ServiceSpec{Selector: named.Labels, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
	scaler := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: named, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: name},
	}}
	c.add(d, record, service, scaler)
	if len(c.updates) < workloadsAdmitted {
		c.updates = append(c.updates, review(b, d, with(d, func(d *appsv1.Deployment) { d.Spec.Template = of("v4") })))
	}
}

func (c *crowd) podsOf(b *testing.B, rs *appsv1.ReplicaSet) {
	b.Helper()
	for i := range podsEach {
		p := stablePod(fmt.Sprintf("%s-%d", rs.Name, i), ownedByReplicaSet(rs), on(fmt.Sprintf("n%d", len(c.objects)%nodesCached)))
		p.Spec.Containers = rs.Spec.Template.Spec.Containers
		c.add(&p)
	}
	if len(c.pods) < workloadsAdmitted {
		fresh := &corev1.Pod{ObjectMeta: *rs.Spec.Template.ObjectMeta.DeepCopy(), Spec: rs.Spec.Template.Spec}
		fresh.GenerateName = rs.Name + "-"
		ownedByReplicaSet(rs)(fresh)
		c.pods = append(c.pods, review(b, nil, fresh))
	}
}

// review is what the API server sends.
func review(b *testing.B, old, obj client.Object) []byte {
	b.Helper()
	request := &admissionv1.AdmissionRequest{
		UID: "review", Namespace: obj.GetNamespace(), Name: obj.GetName(), Operation: admissionv1.Create,
		UserInfo: authenticationv1.UserInfo{Username: "alice"}, Object: runtime.RawExtension{Raw: raw(b, obj)},
	}
	if old != nil {
		request.Operation, request.OldObject = admissionv1.Update, runtime.RawExtension{Raw: raw(b, old)}
	}
	return raw(b, admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"}, Request: request,
	})
}

// serve runs the webhooks in a manager of their own, with caches filled as in production, and returns how
// to ask them.
func (c *crowd) serve(b *testing.B, config *rest.Config) func(b *testing.B, path string, request []byte) (answer string) {
	b.Helper()
	ctrl.SetLogger(zap.New(zap.WriteTo(io.Discard)))      // what is logged in production is made here, too
	keys := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate, and a client that trusts it
	b.Cleanup(keys.Close)
	address := freeAddress(b)
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: c.scheme, MapperProvider: playedapi.Mapper(c.scheme), Logger: logr.Discard(),
		Metrics: metricsserver.Options{BindAddress: "0"},
		Cache:   cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
		WebhookServer: ctrlwebhook.NewServer(ctrlwebhook.Options{Host: address.IP.String(), Port: address.Port, TLSOpts: []func(*tls.Config){
			func(t *tls.Config) {
				t.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &keys.TLS.Certificates[0], nil }
			},
		}}),
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := Register(mgr, Config{
		ControllerUser: controllerUser, SystemNamespace: "headgate-system", Registerer: prometheus.NewRegistry(), Injection: injectConfig(),
	}); err != nil {
		b.Fatal(err)
	}
	playedapi.Start(b, mgr, kinds())
	await(b, mgr)
	return asker(keys.Client(), "https://"+address.String())
}

// await returns when the webhooks answer.
func await(b *testing.B, mgr ctrl.Manager) {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); mgr.GetWebhookServer().StartedChecker()(nil) != nil; {
		if time.Now().After(deadline) {
			b.Fatal("the webhook server does not start")
		}
		time.Sleep(10 * time.Millisecond) // polling a server that tells nobody when it is up
	}
	var pods corev1.PodList
	if err := mgr.GetCache().List(b.Context(), &pods, client.UnsafeDisableDeepCopy); err != nil || len(pods.Items) != namespacesCached*workloadsEach*podsEach {
		b.Fatalf("%d pods are cached: %v", len(pods.Items), err)
	}
}

func asker(c *http.Client, base string) func(*testing.B, string, []byte) string {
	return func(b *testing.B, path string, request []byte) string {
		r, err := c.Post(base+path, "application/json", bytes.NewReader(request))
		if err != nil {
			b.Fatal(err)
		}
		defer r.Body.Close()
		answer, err := io.ReadAll(r.Body)
		if err != nil {
			b.Fatal(err)
		}
		return string(answer)
	}
}

// freeAddress is one on loopback where nobody listens yet.
func freeAddress(b *testing.B) *net.TCPAddr {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		b.Fatalf("%v is no TCP address", l.Addr())
	}
	return address
}

// kinds are those that the webhooks read from their caches.
func kinds() []client.Object {
	return []client.Object{
		&appsv1.Deployment{}, &appsv1.ReplicaSet{}, &corev1.Pod{}, &corev1.Service{}, &corev1.Namespace{}, &corev1.Node{},
		&corev1.ResourceQuota{}, &corev1.LimitRange{}, &autoscalingv2.HorizontalPodAutoscaler{},
		&v1alpha1.Rollout{}, &v1alpha1.RolloutPolicy{}, &v1alpha1.ClusterRolloutPolicy{},
	}
}
