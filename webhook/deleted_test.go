// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
)

func TestAPolicyThatIsBeingRecreatedCounts(t *testing.T) {
	named := func(name string) v1alpha1.RolloutPolicy {
		return v1alpha1.RolloutPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	}
	cluster := func(name string) v1alpha1.ClusterRolloutPolicy {
		return v1alpha1.ClusterRolloutPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	other := named("web")
	other.Namespace = "billing"
	elsewhere := named("web")
	elsewhere.Spec.Selector.MatchLabels = map[string]string{"app": "another"}
	web, def := named("web"), cluster("default")
	for name, tc := range map[string]struct {
		namespaced []v1alpha1.RolloutPolicy
		cluster    []v1alpha1.ClusterRolloutPolicy
		deleted    client.Object
		ago        time.Duration
		want       string
		back       bool // it is there again, or nobody knows that it was deleted
	}{
		"beside the cluster's":      {nil, []v1alpha1.ClusterRolloutPolicy{def}, &web, 29 * time.Second, "rolloutpolicy/web", false},
		"beside none":               {nil, nil, &web, 29 * time.Second, "rolloutpolicy/web", false},
		"for half a minute":         {nil, []v1alpha1.ClusterRolloutPolicy{def}, &web, 30 * time.Second, "clusterrolloutpolicy/default", true},
		"until it is back":          {[]v1alpha1.RolloutPolicy{web}, nil, &web, time.Second, "rolloutpolicy/web", true},
		"until another one is":      {[]v1alpha1.RolloutPolicy{named("new")}, nil, &web, time.Second, "rolloutpolicy/new", true},
		"in its namespace":          {nil, nil, &other, time.Second, "", true},
		"for what it selects":       {nil, nil, &elsewhere, time.Second, "", true},
		"the cluster's, too":        {nil, nil, &def, time.Second, "clusterrolloutpolicy/default", false},
		"of the cluster's the next": {nil, []v1alpha1.ClusterRolloutPolicy{cluster("next")}, &def, time.Second, "clusterrolloutpolicy/next", true},
	} {
		t.Run(name, func(t *testing.T) {
			var d DeletedPolicies
			d.Deleted(tc.deleted, noon)
			s := d.Select("shop", tc.namespaced, tc.cluster, map[string]string{"app": "web"}, noon.Add(tc.ago))
			if s.Name != tc.want || s.Deleted == tc.back {
				t.Errorf("selected %q, deleted: %t; want %q", s.Name, s.Deleted, tc.want)
			}
		})
	}
}

// A chart deletes its policy, updates the Deployment and creates the policy again.
func TestAnUpdateWhileThePolicyIsRecreatedIsHeld(t *testing.T) {
	e := testEdge(t, without[*v1alpha1.ClusterRolloutPolicy](shop()), nil, nil)
	e.deleted = &DeletedPolicies{}
	e.deleted.Deleted(&v1alpha1.RolloutPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}, Spec: v1alpha1.RolloutPolicySpec{Steps: []v1alpha1.Step{{Weight: 50}}}}, noon.Add(-2*time.Second))
	req := admissionOf(t, deployment("v1"), with(deployment("v1"), setTemplate("v2")))
	var got appsv1.Deployment
	admitted(t, req, e.deployments(t.Context(), req), &got)
	if k := holdOf(t, &got).K; k != 5 {
		t.Errorf("k = %d, want 5", k)
	}
}
