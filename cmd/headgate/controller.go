// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/headgate/headgate/internal/controlplane"
)

func newController() *cobra.Command {
	var o controlplane.Options
	var webhookPort int
	var metricsAddress, healthAddress, logLevel, logFormat string
	leaderElect := false
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Run the control plane: webhooks, xDS server and controller",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := setLogger(logLevel, logFormat); err != nil {
				return err
			}
			config, err := ctrl.GetConfig()
			if err != nil {
				return fmt.Errorf("finding the cluster: %w", err)
			}
			// The leader reacts to many pods at once; the API server's own fairness is the limit.
			config.QPS, config.Burst = 100, 200
			scheme, err := newScheme()
			if err != nil {
				return err
			}
			keeper := controlplane.NewKeeper(o)
			told := cmd.Context()
			ctx := controlplane.Drained(told, controlplane.DrainPeriod)
			mgr, err := ctrl.NewManager(config, ctrl.Options{
				Scheme: scheme,
				Cache:  cacheOptions(o.Namespace, o.WebhookConfiguration),
				WebhookServer: controlplane.DrainedServer(told, webhook.NewServer(webhook.Options{
					Port:    webhookPort,
					TLSOpts: []func(*tls.Config){func(c *tls.Config) { c.GetCertificate = keeper.GetCertificate }},
				})),
				Metrics:                 server.Options{BindAddress: metricsAddress},
				HealthProbeBindAddress:  healthAddress,
				LeaderElection:          leaderElect,
				LeaderElectionID:        "headgate",
				LeaderElectionNamespace: o.Namespace,
				// A leader that ends gives its lease back, so that the next one starts at once.
				LeaderElectionReleaseOnCancel: true,
				LeaseDuration:                 new(15 * time.Second),
			})
			if err != nil {
				return fmt.Errorf("setting up the control plane: %w", err)
			}
			if err := controlplane.Setup(ctx, mgr, keeper, o); err != nil {
				return err
			}
			return mgr.Start(ctx)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&leaderElect, "leader-elect", false, "elect a leader among the replicas; only it writes")
	f.StringVar(&o.Namespace, "namespace", "headgate-system", "Headgate's own namespace")
	f.StringVar(&o.Deployment, "deployment", "headgate", "name of Headgate's own Deployment")
	f.IntVar(&webhookPort, "webhook-port", 9443, "port of the webhooks")
	f.IntVar(&o.XDSPort, "xds-port", 15610, "port of the xDS server")
	f.StringVar(&metricsAddress, "metrics-address", ":8080", "address of Prometheus metrics")
	f.StringVar(&healthAddress, "health-address", ":8081", "address of /healthz and /readyz")
	f.StringVar(&o.PrometheusURL, "prometheus-url", "", "Prometheus for policies that name none")
	f.StringVar(&o.PrometheusSecret, "prometheus-secret", "", "Secret of the own namespace with what it asks for; empty: nothing")
	f.StringVar(&o.ProxyImage, "proxy-image", "ghcr.io/headgate/headgate-proxy:"+version, "image of the sidecar")
	f.StringVar(&o.ProxyPullPolicy, "proxy-image-pull-policy", "IfNotPresent", "its pull policy")
	f.StringVar(&o.XDSService, "xds-service", "headgate.headgate-system.svc", "name by which sidecars reach the xDS server")
	f.StringVar(&o.ServiceAccount, "service-account", "headgate", "the service account that this runs as")
	f.StringVar(&o.CertSecret, "cert-secret", "headgate-certs", "Secret with the certificate of webhooks and xDS")
	f.BoolVar(&o.RotateCerts, "rotate-certs", true, "make and rotate that certificate; false: cert-manager does")
	f.StringVar(&o.WebhookConfiguration, "webhook-configuration", "zz-headgate", "mutating webhook configuration whose CA is kept current")
	f.StringVar(&o.TokenFile, "token-file", "/var/run/secrets/headgate.dev/token", "token by which replicas know each other")
	f.StringSliceVar(&o.Autoscalers, "autoscalers", []string{"system:serviceaccount:kube-system:horizontal-pod-autoscaler", "system:kube-controller-manager"},
		"user names whose decreases through the scale subresource are raised while a workload is held")
	f.StringVar(&o.PodSecurityDefault, "pod-security-default", "privileged",
		"Pod Security level that the API server enforces in namespaces without a label: privileged, baseline or restricted")
	f.StringVar(&logLevel, "log-level", "info", "info or debug")
	f.StringVar(&logFormat, "log-format", "json", "json or text")
	return cmd
}

func setLogger(level, format string) error {
	var l zapcore.Level
	if err := l.Set(strings.ToLower(level)); err != nil {
		return fmt.Errorf("reading --log-level: %w", err)
	}
	if format != "json" && format != "text" {
		return fmt.Errorf("reading --log-format: %q is neither json nor text", format)
	}
	encoder := zap.JSONEncoder()
	if format == "text" {
		encoder = zap.ConsoleEncoder()
	}
	ctrl.SetLogger(zap.New(encoder, zap.Level(l)))
	return nil
}

// cacheOptions keep the caches small: Secrets only of the own namespace, the own webhook configuration, and
// nothing of managedFields, which are as large as the objects themselves.
func cacheOptions(namespace, webhookConfiguration string) cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}: {Namespaces: map[string]cache.Config{namespace: {}}},
			&admissionregistrationv1.MutatingWebhookConfiguration{}: {
				Field: fields.OneTermEqualSelector(metav1.ObjectNameField, webhookConfiguration),
			},
		},
	}
}
