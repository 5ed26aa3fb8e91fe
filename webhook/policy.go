// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Selection is the policy that applies to a workload. The zero value: none does.
type Selection struct {
	// Spec is the policy's; nil when no policy selects the workload. A suspended policy is selected
	// too: it keeps others from applying.
	Spec *v1alpha1.RolloutPolicySpec
	// Name is "rolloutpolicy/<name>" or "clusterrolloutpolicy/<name>".
	Name string
	// Cluster says that it is one of the cluster, not of the workload's namespace.
	Cluster bool
	// Deleted says that it was deleted a moment ago, and may be about to come back; see DeletedPolicies.
	Deleted bool
	// Conflicts are the names of policies of the same kind that select the workload as well and lose,
	// oldest first.
	Conflicts []string
	// Unusable is what the policy's condition Accepted says where it is False, which is about the policy as it is now; empty
	// where nobody has found anything wrong with it. An unusable policy is in force all the same.
	Unusable string
}

// trouble says, for whoever updates, what is wrong with the selected policy; empty: nothing is known to be.
func (s Selection) trouble() string {
	if s.Unusable == "" {
		return ""
	}
	return fmt.Sprintf("%s can't be used as it is: %s", s.title(), s.Unusable)
}

// title is kind and name of the selected policy, as in "RolloutPolicy web"; a name that is long is cut.
func (s Selection) title() string {
	kind := "RolloutPolicy"
	if s.Cluster {
		kind = "ClusterRolloutPolicy"
	}
	_, name, _ := strings.Cut(s.Name, "/")
	return kind + " " + shorten(name, 80)
}

// SelectPolicy chooses among the policies of the workload's namespace and those of the cluster: a
// namespaced one wins over the cluster's; of the same kind the older wins, by name if of the same age.
// A policy whose selector can't be parsed selects nothing.
func SelectPolicy(namespaced []v1alpha1.RolloutPolicy, cluster []v1alpha1.ClusterRolloutPolicy, workload map[string]string) Selection {
	var candidates []policyCandidate
	for i := range namespaced {
		candidates = append(candidates, policyCandidate{"rolloutpolicy/", &namespaced[i].ObjectMeta, &namespaced[i].Spec, &namespaced[i].Status})
	}
	if s := selectAmong(candidates, workload); s.Spec != nil {
		return s
	}
	candidates = nil
	for i := range cluster {
		candidates = append(candidates, policyCandidate{"clusterrolloutpolicy/", &cluster[i].ObjectMeta, &cluster[i].Spec, &cluster[i].Status})
	}
	s := selectAmong(candidates, workload)
	s.Cluster = s.Spec != nil
	return s
}

type policyCandidate struct {
	kind   string
	meta   *metav1.ObjectMeta
	spec   *v1alpha1.RolloutPolicySpec
	status *v1alpha1.PolicyStatus
}

// unusable is Selection's. What was said about an earlier generation may be mended.
func (c policyCandidate) unusable() string {
	accepted := meta.FindStatusCondition(c.status.Conditions, v1alpha1.ConditionAccepted)
	if accepted == nil || accepted.Status != metav1.ConditionFalse || accepted.ObservedGeneration != c.meta.Generation {
		return ""
	}
	return accepted.Message
}

func selectAmong(candidates []policyCandidate, workload map[string]string) Selection {
	matching := slices.DeleteFunc(candidates, func(c policyCandidate) bool {
		selector, err := metav1.LabelSelectorAsSelector(&c.spec.Selector)
		return err != nil || !selector.Matches(labels.Set(workload))
	})
	if len(matching) == 0 {
		return Selection{}
	}
	slices.SortFunc(matching, func(a, b policyCandidate) int {
		return cmp.Or(a.meta.CreationTimestamp.Compare(b.meta.CreationTimestamp.Time), cmp.Compare(a.meta.Name, b.meta.Name))
	})
	s := Selection{Spec: matching[0].spec, Name: matching[0].kind + matching[0].meta.Name, Unusable: matching[0].unusable()}
	for _, c := range matching[1:] {
		s.Conflicts = append(s.Conflicts, c.kind+c.meta.Name)
	}
	return s
}
