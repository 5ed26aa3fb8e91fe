// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/controller"
)

func secretOf(namespace, name string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}
}

// Who has the right Secret is answered; who has not is told why, and his look is missing.
func TestSecretsOfPrometheuses(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t0ken" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	}))
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	good := map[string][]byte{"ca.crt": ca, "token": []byte("t0ken")}
	reader := interceptor.NewClient(fake.NewClientBuilder().WithObjects(
		secretOf("headgate-system", "prometheus", good), secretOf("headgate-system", "headgate-certs", good),
		secretOf("shop", "prometheus", good), secretOf("shop", "wrong", map[string][]byte{"ca.crt": ca, "token": []byte("guess")}), secretOf("shop", "forbidden", good),
	).Build(), interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		switch key.Name {
		case "forbidden":
			return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, key.Name, errors.New("by RBAC"))
		case "slow":
			return context.DeadlineExceeded
		}
		return c.Get(ctx, key, o, opts...)
	}})
	own := Options{Namespace: "headgate-system", PrometheusURL: server.URL, PrometheusSecret: "prometheus"}.own()
	p := prometheuses{reader: reader, own: own, namespace: "headgate-system"}
	named := func(namespace, name string) controller.Endpoint {
		return controller.Endpoint{URL: server.URL, Secret: types.NamespacedName{Namespace: namespace, Name: name}}
	}
	for name, tc := range map[string]struct {
		endpoint controller.Endpoint
		want     string
	}{
		"the installation's":                  {own, ""},
		"a policy's":                          {named("shop", "prometheus"), ""},
		"a wrong one":                         {named("shop", "wrong"), "Prometheus can't be asked: it refuses the credentials (403 Forbidden)"},
		"none that is there":                  {named("shop", "gone"), `Prometheus can't be asked: no credentials: there is no Secret "shop/gone"`},
		"one that Headgate has no right to":   {named("shop", "forbidden"), `Prometheus can't be asked: no credentials: Headgate has no right to get Secret "shop/forbidden"`},
		"one of Headgate's own":               {named("headgate-system", "headgate-certs"), `Prometheus can't be asked: no credentials: Secrets of namespace "headgate-system" are not for policies`},
		"one that can't be read for a moment": {named("shop", "slow"), `Prometheus can't be asked: reading Secret "shop/slow": context deadline exceeded`},
	} {
		t.Run(name, func(t *testing.T) {
			err := p.check(t.Context(), tc.endpoint, prometheus.Query{Expression: "up"})
			if (err == nil) != (tc.want == "") || err != nil && err.Error() != tc.want {
				t.Errorf("the query says %v, want %q", err, tc.want)
			}
			if errors.Is(err, prometheus.ErrBadQuery) || errors.Is(err, prometheus.ErrAccess) != (tc.want != "") {
				t.Errorf("it is taken for something else: %v", err)
			}
			c, err := p.connect(tc.endpoint)
			if err != nil {
				t.Fatal(err)
			}
			looks, _ := c.Looks(t.Context(), time.Now(), []prometheus.Target{{Namespace: "shop", Workload: "web", Candidate: "new", Stable: "old", Weight: 10}})
			if want := cmp.Or(tc.want, "no sidecar's counters found"); !looks[0].Missing || looks[0].Reason != want {
				t.Errorf("the look is %+v, want it missing: %s", looks[0], want)
			}
		})
	}
}
