// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package controlplane wires the parts of the control plane into one manager: webhooks and the xDS
// server on every replica, the rollout controller and the analysis on the leader.
package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	podsecurity "k8s.io/pod-security-admission/api"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/controller"
	"github.com/headgate/headgate/internal/certs"
	"github.com/headgate/headgate/webhook"
	"github.com/headgate/headgate/xds/server"
)

// Options say how the control plane runs; see the flags of `headgate controller`.
type Options struct {
	Namespace, Deployment       string
	XDSPort                     int
	XDSService                  string
	PrometheusURL               string
	PrometheusSecret            string // its name, in Namespace; empty: none
	ProxyImage, ProxyPullPolicy string
	ServiceAccount              string
	CertSecret                  string
	RotateCerts                 bool
	WebhookConfiguration        string
	TokenFile                   string
	PodSecurityDefault          string // privileged, baseline or restricted: what the API server enforces without a label
	Autoscalers                 []string
}

// NewKeeper holds the certificate that webhooks and xDS share.
func NewKeeper(o Options) *certs.Keeper {
	return certs.NewKeeper(types.NamespacedName{Namespace: o.Namespace, Name: o.CertSecret}, o.WebhookConfiguration)
}

// Setup registers everything with the manager.
func Setup(ctx context.Context, mgr ctrl.Manager, keeper *certs.Keeper, o Options) error {
	if err := setupCertificates(ctx, mgr, keeper, o); err != nil {
		return err
	}
	wake := make(chan types.NamespacedName, 4096)
	xdsServer, sidecars, err := setupXDS(ctx, mgr, keeper, o, wake)
	if err != nil {
		return err
	}
	deleted := &webhook.DeletedPolicies{}
	if err := deleted.Follow(ctx, mgr.GetCache(), time.Now); err != nil {
		return err
	}
	if err := setupController(mgr, o, wake, xdsServer, sidecars, deleted); err != nil {
		return err
	}
	if err := setupWebhooks(mgr, keeper, o, deleted); err != nil {
		return err
	}
	if err := mgr.AddMetricsServerExtraHandler(TargetsPath, Targets(mgr.GetClient())); err != nil {
		return fmt.Errorf("adding the list of sidecars for Prometheus: %w", err)
	}
	return setupHealth(ctx, mgr, keeper)
}

func setupCertificates(ctx context.Context, mgr ctrl.Manager, keeper *certs.Keeper, o Options) error {
	if err := keeper.Watch(ctx, mgr); err != nil {
		return err
	}
	if !o.RotateCerts {
		return nil
	}
	return keeper.Rotate(mgr, []string{o.XDSService, o.XDSService + ".cluster.local"})
}

// notify wakes a workload. A full channel is no loss: an active rollout is looked at every second anyway.
func notify(wake chan<- types.NamespacedName, key types.NamespacedName) {
	select {
	case wake <- key:
	default:
	}
}

func setupXDS(ctx context.Context, mgr ctrl.Manager, keeper *certs.Keeper, o Options, wake chan<- types.NamespacedName) (*server.Server, controller.Sidecars, error) {
	clients, err := kubernetes.NewForConfig(mgr.GetConfig())
	if err != nil {
		return nil, nil, fmt.Errorf("setting up token reviews: %w", err)
	}
	serverMetrics, err := server.NewMetrics(metrics.Registry)
	if err != nil {
		return nil, nil, err
	}
	tokens := server.NewTokenReviews(clients.AuthenticationV1().TokenReviews(), v1alpha1.TokenAudience, nil)
	woken := func(k server.Key) { notify(wake, types.NamespacedName{Namespace: k.Namespace, Name: k.Name}) }
	s := server.New(ctx, server.Config{
		Identify: server.Tokens(tokens, locator{mgr.GetClient()}),
		OnChange: woken,
		Metrics:  serverMetrics,
		Log:      mgr.GetLogger().WithName("xds"),
	})
	g := grpc.NewServer(server.Options(&tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: keeper.GetCertificate})...)
	s.Register(g)
	(&server.ReplicaService{Server: s, Authenticator: tokens, User: o.user()}).Register(g)
	if err := mgr.Add(everywhere{listen(g, o.XDSPort)}); err != nil {
		return nil, nil, fmt.Errorf("adding the xDS server: %w", err)
	}
	replicas := server.NewReplicas(server.ReplicasConfig{
		TLS:      func() (*tls.Config, error) { return keeper.ClientTLS(o.XDSService) },
		Token:    func() (string, error) { return readToken(o.TokenFile) },
		OnChange: woken,
	})
	if err := mgr.Add(&follower{reader: mgr.GetClient(), replicas: replicas, options: o}); err != nil {
		return nil, nil, fmt.Errorf("adding the view of other replicas: %w", err)
	}
	return s, &acks{server: s, replicas: replicas}, nil
}

// user is the name by which the API server knows Headgate's own service account.
func (o Options) user() string {
	return "system:serviceaccount:" + o.Namespace + ":" + o.ServiceAccount
}

// listen serves until the context ends; then all streams end at once (see server.New). Sidecars keep their configuration,
// and each comes back to another replica after a pause with a jitter of its own.
func listen(g *grpc.Server, port int) func(context.Context) error {
	return func(ctx context.Context) error {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return fmt.Errorf("listening for sidecars: %w", err)
		}
		stopped := context.AfterFunc(ctx, g.Stop)
		defer stopped()
		if err := g.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serving sidecars: %w", err)
		}
		return nil
	}
}

// everywhere is a runnable that needs no leadership.
type everywhere struct{ run func(context.Context) error }

// Start implements manager.Runnable.
func (e everywhere) Start(ctx context.Context) error { return e.run(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (e everywhere) NeedLeaderElection() bool { return false }

var _ manager.LeaderElectionRunnable = everywhere{}

func setupController(mgr ctrl.Manager, o Options, wake chan types.NamespacedName, sink *server.Server, sidecars controller.Sidecars, deleted *webhook.DeletedPolicies) error {
	prom := prometheuses{reader: mgr.GetAPIReader(), own: o.own(), namespace: o.Namespace}
	looks := &controller.Looks{
		Client:     mgr.GetClient(),
		Prometheus: prom.own,
		Connect:    prom.connect,
		FastLane:   prometheus.NewSidecars(nil),
		Wake:       func(key types.NamespacedName) { notify(wake, key) },
	}
	if err := mgr.Add(looks); err != nil {
		return fmt.Errorf("adding the analysis: %w", err)
	}
	if err := metrics.Registry.Register(looks); err != nil {
		return fmt.Errorf("registering the analysis' metrics: %w", err)
	}
	policies := &controller.Policies{Client: mgr.GetClient(), Prometheus: prom.own, Check: prom.check}
	if err := controller.SetupPolicies(mgr, policies); err != nil {
		return err
	}
	r := &controller.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Events: mgr.GetEventRecorder("headgate"),
		Namespace: o.Namespace, Deployment: o.Deployment, Deleted: deleted, Now: time.Now, Sidecars: sidecars, Looks: looks,
	}
	return controller.Setup(mgr, r, &controller.Feeder{Reconciler: r, Sink: configurations{sink}}, wake)
}

// injection is what the Pod webhook knows when it starts. A Pod Security level that does not exist is an error: a
// guess would cost pods their sidecars, or have them refused.
func (o Options) injection() (webhook.InjectConfig, error) {
	if _, err := podsecurity.ParseLevel(o.PodSecurityDefault); err != nil {
		return webhook.InjectConfig{}, fmt.Errorf("reading the default Pod Security level %q: %w", o.PodSecurityDefault, err)
	}
	return webhook.InjectConfig{
		Image: o.ProxyImage, PullPolicy: corev1.PullPolicy(o.ProxyPullPolicy), PodSecurityDefault: o.PodSecurityDefault,
		XDSAddress: fmt.Sprintf("%s:%d", o.XDSService, o.XDSPort), XDSName: o.XDSService,
	}, nil
}

func setupWebhooks(mgr ctrl.Manager, keeper *certs.Keeper, o Options, deleted *webhook.DeletedPolicies) error {
	injection, err := o.injection()
	if err != nil {
		return err
	}
	own := types.NamespacedName{Namespace: o.Namespace, Name: o.Deployment}
	return webhook.Register(mgr, webhook.Config{
		SystemNamespace: o.Namespace,
		ControllerUser:  o.user(),
		Autoscalers:     o.Autoscalers,
		Injection:       injection,
		CA:              keeper.CA,
		Releasing:       func(ctx context.Context) bool { return controller.Releasing(ctx, mgr.GetClient(), own) },
		Deleted:         deleted,
		Registerer:      metrics.Registry,
	})
}

// setupHealth: alive when it runs; ready when certificates are served and all caches have synced, so
// that no webhook answers from an empty cache.
func setupHealth(ctx context.Context, mgr ctrl.Manager, keeper *certs.Keeper) error {
	for _, o := range []client.Object{
		&appsv1.Deployment{}, &appsv1.ReplicaSet{}, &corev1.Pod{}, &corev1.Service{}, &corev1.Namespace{}, &corev1.Node{},
		&corev1.ResourceQuota{}, &corev1.LimitRange{},
		&autoscalingv2.HorizontalPodAutoscaler{}, &v1alpha1.Rollout{}, &v1alpha1.RolloutPolicy{}, &v1alpha1.ClusterRolloutPolicy{},
		&v1alpha1.MetricTemplate{}, &v1alpha1.ClusterMetricTemplate{},
	} {
		if _, err := mgr.GetCache().GetInformer(ctx, o); err != nil {
			return fmt.Errorf("caching %T: %w", o, err)
		}
	}
	synced := make(chan struct{})
	if err := mgr.Add(everywhere{func(ctx context.Context) error {
		if mgr.GetCache().WaitForCacheSync(ctx) {
			close(synced)
		}
		<-ctx.Done()
		return nil
	}}); err != nil {
		return fmt.Errorf("adding the cache check: %w", err)
	}
	checks := map[string]healthz.Checker{
		"certificates": keeper.Ready,
		"webhooks":     mgr.GetWebhookServer().StartedChecker(),
		"caches": func(*http.Request) error {
			select {
			case <-synced:
				return nil
			default:
				return errors.New("caches have not synced yet")
			}
		},
	}
	for name, check := range checks {
		if err := mgr.AddReadyzCheck(name, check); err != nil {
			return fmt.Errorf("adding readiness check %q: %w", name, err)
		}
	}
	if err := mgr.AddHealthzCheck("alive", healthz.Ping); err != nil {
		return fmt.Errorf("adding the liveness check: %w", err)
	}
	return nil
}
