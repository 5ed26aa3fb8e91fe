// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// admissionName of the pod and the Service of a case's own webhook.
const admissionName = "admission"

// Order is when another webhook is called: they run in the order of their configurations' names.
type Order string

// Orders.
const (
	BeforeHeadgate Order = "aa"
	AfterHeadgate  Order = "zzz"
)

// AddWebhook brings a mutating webhook of somebody else into the namespace: the sample application's, with
// these flags (see package app). It sees Deployments and pods there, and goes with the case.
func (c *Case) AddWebhook(order Order, flags ...string) {
	c.T.Helper()
	certificate, key, err := SelfSigned(admissionName + "." + c.Namespace + ".svc")
	if err != nil {
		c.T.Fatalf("making a certificate: %v", err)
	}
	labels := map[string]string{"headgate-e2e": admissionName}
	meta := metav1.ObjectMeta{Namespace: c.Namespace, Name: admissionName, Labels: labels}
	pod := &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: admissionName, Image: AppImage + "v1", Args: append([]string{"admit"}, flags...),
		Env:            []corev1.EnvVar{{Name: "TLS_CERT", Value: string(certificate)}, {Name: "TLS_KEY", Value: string(key)}},
		ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8443)}}},
	}}}}
	service := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
		Selector: labels, Ports: []corev1.ServicePort{{Port: 443, TargetPort: intstr.FromInt32(8443)}},
	}}
	for _, o := range []client.Object{pod, service} {
		if err := c.Client.Create(c.Ctx, o); err != nil {
			c.T.Fatalf("creating another webhook: %v", err)
		}
	}
	c.AwaitPod(admissionName, "it serves", Ready)
	configuration := c.webhookConfiguration(order, certificate)
	if err := c.Client.Create(c.Ctx, configuration); err != nil {
		c.T.Fatalf("registering another webhook: %v", err)
	}
	c.T.Cleanup(func() { // before the namespace goes: pods could not be created without it
		if err := c.Client.Delete(c.Ctx, configuration); err != nil {
			c.T.Errorf("removing another webhook: %v", err)
		}
	})
	// It is ready a moment before the node has a route to it.
	if err := admitted(c.Ctx, func(ctx context.Context) error { return c.Client.Create(ctx, idle(c.Namespace), client.DryRunAll) }); err != nil {
		c.T.Fatalf("waiting until the API server reaches another webhook: %v", err)
	}
}

func (c *Case) webhookConfiguration(order Order, ca []byte) *admissionregistrationv1.MutatingWebhookConfiguration {
	none, port := admissionregistrationv1.SideEffectClassNone, int32(443)
	rule := func(group, resource string, operations ...admissionregistrationv1.OperationType) admissionregistrationv1.RuleWithOperations {
		return admissionregistrationv1.RuleWithOperations{Operations: operations, Rule: admissionregistrationv1.Rule{
			APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: []string{resource},
		}}
	}
	return &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: string(order) + "-" + c.Namespace},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "others.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: &none,
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				CABundle: ca,
				Service:  &admissionregistrationv1.ServiceReference{Namespace: c.Namespace, Name: admissionName, Port: &port},
			},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: c.Namespace}},
			Rules: []admissionregistrationv1.RuleWithOperations{
				rule("apps", "deployments", admissionregistrationv1.Create, admissionregistrationv1.Update),
				rule("", "pods", admissionregistrationv1.Create),
			},
		}},
	}
}

// AwaitPod waits until a pod of this name is as asked.
func (c *Case) AwaitPod(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	c.T.Helper()
	return awaitOne(c, &corev1.PodList{}, awaited[*corev1.Pod]{name, 2 * time.Minute, fmt.Sprintf("pod %s: %s", name, what), ok})
}

// SelfSigned makes a certificate that is its own authority, and its key, both as PEM.
func SelfSigned(host string) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	var c, k bytes.Buffer
	err = pem.Encode(&c, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err == nil {
		err = pem.Encode(&k, &pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
	}
	return c.Bytes(), k.Bytes(), err
}
