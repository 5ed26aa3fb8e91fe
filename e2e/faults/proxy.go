// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/e2e/faults/proxyfault"
	"github.com/headgate/headgate/e2e/harness"
)

// Proxy stands between Headgate and a server that it needs.
type Proxy struct {
	c               *harness.Case
	namespace, name string
}

// proxyPort is one that the control plane's NetworkPolicy lets through.
const proxyPort = 8443

// NewPrometheus is a proxy in front of the Prometheus that the chart brings, for policies that name its URL. It
// has no faults yet, disturbs nobody else, and goes with the case.
func NewPrometheus(c *harness.Case) (p *Proxy, url string) {
	c.T.Helper()
	p = &Proxy{c, c.Namespace, "faulty-prometheus"}
	p.start(fmt.Sprintf("--to=http://%s.%s.svc:9090", Prometheus, harness.SystemNamespace))
	return p, fmt.Sprintf("http://%s.%s.svc:%d", p.name, p.namespace, proxyPort)
}

// NewAPIServer restarts the control plane behind a proxy that has no faults yet. When the test ends, the
// control plane is restarted without it.
func NewAPIServer(c *harness.Case) *Proxy {
	c.T.Helper()
	p := &Proxy{c, harness.SystemNamespace, "faulty-apiserver"}
	host := p.name + "." + p.namespace + ".svc"
	certificate, key, err := harness.SelfSigned(host)
	if err != nil {
		c.T.Fatalf("making a certificate: %v", err)
	}
	kubeconfig := &corev1.ConfigMap{ObjectMeta: p.meta(), Data: map[string]string{"kubeconfig": fmt.Sprintf(
		`{apiVersion: v1, kind: Config, current-context: faulty,
contexts: [{name: faulty, context: {cluster: faulty, user: own}}],
clusters: [{name: faulty, cluster: {server: "https://%s:%d", certificate-authority-data: %s}}],
users: [{name: own, user: {tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token}}]}`,
		host, proxyPort, base64.StdEncoding.EncodeToString(certificate))}}
	p.create(kubeconfig)
	p.start("", corev1.EnvVar{Name: "TLS_CERT", Value: string(certificate)}, corev1.EnvVar{Name: "TLS_KEY", Value: string(key)})
	useKubeconfig(c, kubeconfig.Name)
	return p
}

func (p *Proxy) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: p.namespace, Name: p.name, Labels: map[string]string{"headgate-e2e": p.name}}
}

// start returns when the proxy serves.
func (p *Proxy) start(to string, env ...corev1.EnvVar) {
	p.c.T.Helper()
	args := []string{"proxy", fmt.Sprintf("--listen=:%d", proxyPort)}
	if to != "" {
		args = append(args, to)
	}
	p.create(&corev1.Service{ObjectMeta: p.meta(), Spec: corev1.ServiceSpec{
		Selector: p.meta().Labels, Ports: []corev1.ServicePort{{Port: proxyPort}},
		// It is away when it says so, not when a probe has noticed.
		PublishNotReadyAddresses: true,
	}})
	p.create(&corev1.Pod{ObjectMeta: p.meta(), Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "proxy", Image: harness.AppImage + "v1", Args: args, Env: env,
		ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(proxyPort)}}},
	}}}})
	if r := p.c.RunKubectl(p.c.Ctx, "", "-n", p.namespace, "wait", "--for=condition=Ready", "pod/"+p.name, "--timeout=2m"); r.Exit != 0 {
		p.c.T.Fatal(r)
	}
}

func (p *Proxy) create(o client.Object) {
	p.c.T.Helper()
	p.c.T.Cleanup(func() {
		// At once: nobody needs it any more, and the next case may want the name.
		if err := client.IgnoreNotFound(p.c.Client.Delete(p.c.Ctx, o, client.GracePeriodSeconds(0))); err != nil {
			p.c.T.Errorf("removing %s: %v", p.name, err)
		}
	})
	if err := p.c.Client.Create(p.c.Ctx, o); err != nil {
		p.c.T.Fatalf("creating %s: %v", p.name, err)
	}
}

// Set makes it behave like this from now on, and returns what it did so far.
func (p *Proxy) Set(f proxyfault.Faults) proxyfault.Counts {
	p.c.T.Helper()
	body, err := json.Marshal(f)
	if err != nil {
		p.c.T.Fatalf("encoding faults: %v", err)
	}
	out, err := p.c.Kube.CoreV1().RESTClient().Post().Namespace(p.namespace).Resource("pods").
		Name("http:" + p.name + ":8081").SubResource("proxy").Suffix("faults").Body(body).DoRaw(p.c.Ctx)
	var counts proxyfault.Counts
	if err == nil {
		err = json.Unmarshal(out, &counts)
	}
	if err != nil {
		p.c.T.Fatalf("setting faults of %s: %v: %s", p.name, err, out)
	}
	return counts
}

// Await sets faults and waits until so many requests have come since the proxy began. It asks once a second.
func (p *Proxy) Await(within time.Duration, f proxyfault.Faults, requests int64) proxyfault.Counts {
	p.c.T.Helper()
	var counts proxyfault.Counts
	p.c.Await(within, fmt.Sprintf("%s had %d requests", p.name, requests), func(ctx context.Context) error {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			if counts = p.Set(f); counts.Requests >= requests {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	})
	return counts
}

// useKubeconfig gives the control plane the one of a ConfigMap; its Deployment is as before when the test ends.
func useKubeconfig(c *harness.Case, configMap string) {
	c.T.Helper()
	var before appsv1.Deployment
	key := client.ObjectKey{Namespace: harness.SystemNamespace, Name: ControlPlane}
	if err := c.Client.Get(c.Ctx, key, &before); err != nil {
		c.T.Fatalf("reading the control plane's Deployment: %v", err)
	}
	const volume, folder = "kubeconfig", "/kubeconfig"
	with := before.DeepCopy()
	spec := &with.Spec.Template.Spec
	spec.Volumes = append(spec.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: configMap}},
	}})
	own := &spec.Containers[0]
	own.VolumeMounts = append(own.VolumeMounts, corev1.VolumeMount{Name: volume, MountPath: folder})
	own.Env = append(own.Env, corev1.EnvVar{Name: "KUBECONFIG", Value: folder + "/kubeconfig"})
	roll := func(spec appsv1.DeploymentSpec) {
		var now appsv1.Deployment
		err := c.Client.Get(c.Ctx, key, &now)
		if err == nil {
			now.Spec = spec
			err = c.Client.Update(c.Ctx, &now)
		}
		if err != nil {
			c.T.Fatalf("changing the control plane's Deployment: %v", err)
		}
		system(c, "rollout", "status", "deployment/"+ControlPlane, "--timeout=3m")
	}
	c.T.Cleanup(func() { roll(before.Spec) })
	roll(with.Spec)
}
