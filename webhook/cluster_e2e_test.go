// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package webhook

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/yaml"

	"github.com/headgate/headgate/api/v1alpha1"
)

// realCluster is a cluster with this package's webhooks, served by the test, in one namespace of it. Its
// pods are never scheduled: the Deployment controller, admission and field ownership are what is tested.
type realCluster struct {
	*testing.T
	user, controller client.WithWatch
	namespace        string
	mu               sync.Mutex
	warnings         []string
}

// HandleWarningHeader records what kubectl would print.
func (r *realCluster) HandleWarningHeader(_ int, _ string, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warnings = append(r.warnings, text)
}

func startReal(t *testing.T) *realCluster {
	t.Helper()
	if os.Getenv("KUBECONFIG") == "" {
		t.Skip("needs KUBECONFIG, of a cluster that can reach this machine")
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme, apiextensionsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	r := &realCluster{T: t}
	userConfig := rest.CopyConfig(config)
	userConfig.WarningHandler = r
	r.user = r.connect(userConfig, scheme)
	impersonated := rest.CopyConfig(config)
	impersonated.Impersonate.UserName = controllerUser
	impersonated.WarningHandler = rest.NoWarnings{}
	r.controller = r.connect(impersonated, scheme)
	r.install()
	r.serve(config, scheme)
	return r
}

func (r *realCluster) connect(config *rest.Config, scheme *runtime.Scheme) client.WithWatch {
	r.Helper()
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	r.must(err)
	return c
}

func (r *realCluster) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *realCluster) create(o client.Object) {
	r.Helper()
	if err := r.user.Create(r.Context(), o); err != nil && !apierrors.IsAlreadyExists(err) {
		r.Fatalf("creating %T: %v", o, err)
	}
}

// cleanUp deletes what the test made, also from a context that is over.
func (r *realCluster) cleanUp(o client.Object) {
	r.Cleanup(func() { _ = r.user.Delete(context.Background(), o) })
}

// install makes the CRDs, a namespace and the rights of the controller in it.
func (r *realCluster) install() {
	r.Helper()
	files, err := filepath.Glob("../charts/headgate/crds/*.yaml")
	r.must(err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		r.must(err)
		var crd apiextensionsv1.CustomResourceDefinition
		r.must(yaml.Unmarshal(b, &crd))
		r.create(&crd)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "webhook-", Labels: map[string]string{v1alpha1.EnabledLabel: "true"}}}
	r.create(ns)
	r.cleanUp(ns)
	r.namespace = ns.Name
	r.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "controller"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: controllerUser}},
	})
	r.eventually("the policy can be made", func() bool {
		p := &v1alpha1.RolloutPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "p"}}
		err := r.user.Create(r.Context(), p)
		return err == nil || apierrors.IsAlreadyExists(err)
	})
}

// eventually looks again until a condition holds: the Deployment controller works in its own time.
func (r *realCluster) eventually(what string, holds func() bool) {
	r.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			r.Fatalf("not within a minute: %s", what)
		}
	}
}

// serve runs the webhooks on the address by which the cluster is reached, and registers them.
func (r *realCluster) serve(config *rest.Config, scheme *runtime.Scheme) {
	r.Helper()
	host, port := r.listenAddress(config.Host)
	certificate, ca := r.certificate(host)
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"},
		WebhookServer: ctrlwebhook.NewServer(ctrlwebhook.Options{Host: host, Port: port, TLSOpts: []func(*tls.Config){
			func(c *tls.Config) {
				c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil }
			},
		}}),
	})
	r.must(err)
	r.must(Register(mgr, Config{
		ControllerUser: controllerUser, SystemNamespace: "headgate-system", Registerer: prometheus.NewRegistry(),
		Injection: InjectConfig{Image: "proxy:1", XDSAddress: "headgate.headgate-system.svc:15610", XDSName: "headgate.headgate-system.svc"},
	}))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	r.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			r.Error(err)
		}
	})
	// Informers start with their first use; the API server waits 10 s at most for that.
	for _, o := range []client.Object{&appsv1.Deployment{}, &appsv1.ReplicaSet{}, &corev1.Pod{}, &corev1.Namespace{}, &v1alpha1.Rollout{}, &v1alpha1.RolloutPolicy{}, &v1alpha1.ClusterRolloutPolicy{}} {
		_, err := mgr.GetCache().GetInformer(ctx, o)
		r.must(err)
	}
	r.register(fmt.Sprintf("https://%s", net.JoinHostPort(host, fmt.Sprint(port))), ca)
}

func (r *realCluster) register(base string, ca []byte) {
	r.Helper()
	hook := func(name, path, resource string, op admissionregistrationv1.OperationType, group string) admissionregistrationv1.MutatingWebhook {
		return admissionregistrationv1.MutatingWebhook{
			Name: name + ".headgate.dev", AdmissionReviewVersions: []string{"v1"}, SideEffects: ptr(admissionregistrationv1.SideEffectClassNone),
			FailurePolicy: ptr(admissionregistrationv1.Fail), TimeoutSeconds: ptr[int32](10), ReinvocationPolicy: ptr(admissionregistrationv1.IfNeededReinvocationPolicy),
			ClientConfig:      admissionregistrationv1.WebhookClientConfig{URL: ptr(base + path), CABundle: ca},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": r.namespace}},
			Rules: []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{op}, Rule: admissionregistrationv1.Rule{
				APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: []string{resource},
			}}},
		}
	}
	c := &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "zz-" + r.namespace},
		Webhooks: []admissionregistrationv1.MutatingWebhook{
			hook("deployments", DeploymentsPath, "deployments", admissionregistrationv1.Update, "apps"),
			hook("pods", PodsPath, "pods", admissionregistrationv1.Create, ""),
			hook("scale", ScalePath, "deployments/scale", admissionregistrationv1.Update, "apps"),
		},
	}
	r.create(c)
	r.cleanUp(c)
	probe := r.probe()
	r.eventually("pods are injected", func() bool {
		pod := probe.DeepCopy()
		if err := r.user.Create(r.Context(), pod, client.DryRunAll); err != nil {
			r.Logf("not served yet: %v", err)
			return false
		}
		return pod.Labels[v1alpha1.InjectedLabel] == "true"
	})
}

// probe is a pod as the ReplicaSet controller would make it for a workload without replicas: created dry, it
// shows whether the API server calls the webhooks already, and leaves nothing behind that a look could meet.
func (r *realCluster) probe() *corev1.Pod {
	r.Helper()
	d := r.deployment("probe", "v1")
	d.Spec.Replicas = ptr[int32](0)
	r.create(d)
	var sets appsv1.ReplicaSetList
	r.eventually("the probe has its ReplicaSet", func() bool {
		r.must(r.user.List(r.Context(), &sets, client.InNamespace(r.namespace), client.MatchingLabels{"app": "probe"}))
		return len(sets.Items) == 1
	})
	set := &sets.Items[0]
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: r.namespace, Name: "probe", Labels: set.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))},
		},
		Spec: set.Spec.Template.Spec,
	}
}

// listenAddress is the address of this machine that faces the cluster, and a free port there.
func (r *realCluster) listenAddress(apiServer string) (host string, port int) {
	r.Helper()
	u, err := url.Parse(apiServer)
	r.must(err)
	conn, err := net.Dial("udp", u.Host)
	r.must(err)
	defer conn.Close()
	host = conn.LocalAddr().(*net.UDPAddr).IP.String()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	r.must(err)
	defer l.Close()
	return host, l.Addr().(*net.TCPAddr).Port
}

func (r *realCluster) certificate(host string) (tls.Certificate, []byte) {
	r.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.ParseIP(host)}, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	r.must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
