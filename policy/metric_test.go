// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/headgate/headgate/api/v1alpha1"
)

// A comparison of the candidate with itself would pass whatever happens. The policy says what is wrong; so does the rollout.
func TestAQueryThatMakesNoSenseIsMissing(t *testing.T) {
	same := &v1alpha1.Metric{Name: "m", MetricSpec: v1alpha1.MetricSpec{Query: "queue", ComparedToStable: &v1alpha1.Comparison{Max: &v1alpha1.Line{Ratio: new("2")}}}}
	if q := Query(same); q.Unusable != "its query can't be used: it asks for the same whether the candidate is meant or stable; it needs {{.Revision}}" {
		t.Errorf("it is asked, and says %q", q.Unusable)
	}
	same.Query = `queue{revision="{{.Revision}}"}`
	if q := Query(same); q.Unusable != "" {
		t.Errorf("it is not asked: %s", q.Unusable)
	}
	same.ComparedToStable.Min = &v1alpha1.Line{Ratio: new("3")}
	if q := Query(same); !strings.HasPrefix(q.Unusable, "no value of it could be good: min is above max, whatever stable's value is") {
		t.Errorf("no value could be within its bounds, and it says %q", q.Unusable)
	}
}

// The warm-up goes to both: to the judge, which waits for it, and to what is asked, of which nothing is to be told before.
func TestTheWarmUpIsKept(t *testing.T) {
	m := &v1alpha1.Metric{Name: "m", MetricSpec: v1alpha1.MetricSpec{WarmUp: &metav1.Duration{Duration: time.Minute}}}
	if q, c := Query(m), Criterion(m); q.WarmUp != time.Minute || c.WarmUp != time.Minute {
		t.Errorf("of a minute it is %s in the query and %s in the criterion", q.WarmUp, c.WarmUp)
	}
}
