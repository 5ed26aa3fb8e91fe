// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/e2e/harness"
)

// Webhook is one of Headgate's, by the name that its configuration has for it.
type Webhook string

// Webhooks.
const (
	DeploymentWebhook Webhook = "deployments.headgate.dev"
	PodWebhook        Webhook = "pods.headgate.dev"
)

// webhookConfiguration has both.
const webhookConfiguration = "zz-headgate"

// Refuse makes the API server call a webhook where connections are refused, until it is mended or the test ends.
func Refuse(c *harness.Case, w Webhook) (mend func()) {
	c.T.Helper()
	return w.pointedTo(c, harness.SystemNamespace, harness.SystemName, 444)
}

// Hang makes the API server call a webhook where connections are accepted and nothing is ever answered, until it is
// mended or the test ends: every call takes as long as the API server waits.
func Hang(c *harness.Case, w Webhook) (mend func()) {
	c.T.Helper()
	const hung, port = "hung", 443
	meta := metav1.ObjectMeta{Namespace: c.Namespace, Name: hung, Labels: map[string]string{"headgate-e2e": hung}}
	for _, o := range []client.Object{
		&corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: hung, Image: harness.AppImage + "hang"}}}},
		&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
			Selector: meta.Labels, Ports: []corev1.ServicePort{{Port: port, TargetPort: intstr.FromInt32(8080)}},
		}},
	} {
		// It may have hung before, in this case.
		if err := c.Client.Create(c.Ctx, o); client.IgnoreAlreadyExists(err) != nil {
			c.T.Fatalf("creating a webhook that never answers: %v", err)
		}
	}
	c.AwaitPod(hung, "it is ready", harness.Ready)
	return w.pointedTo(c, c.Namespace, hung, port)
}

// pointedTo has the webhook called at another Service.
func (w Webhook) pointedTo(c *harness.Case, namespace, service string, port int) (mend func()) {
	c.T.Helper()
	point := func(namespace, service string, port int) {
		patch := fmt.Sprintf(`{"webhooks":[{"name":%q,"clientConfig":{"service":{"namespace":%q,"name":%q,"port":%d}}}]}`, w, namespace, service, port)
		system(c, "patch", "mutatingwebhookconfiguration", webhookConfiguration, "--type=strategic", "-p", patch)
	}
	point(namespace, service, port)
	return mended(c, func() { point(harness.SystemNamespace, harness.SystemName, 443) })
}
