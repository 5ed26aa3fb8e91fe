// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Where there is little traffic a look has one request, and the candidate's pods have it in turn.
func TestPodsInTurn(t *testing.T) {
	var st State
	for i := range 8 {
		st.fresh(serving(1, 1, []string{"a", "b"}[i%2]), 5*time.Second)
	}
	want := []Pod{{Name: "a", Age: 35 * time.Second, Idle: 5 * time.Second, Missed: 0.5}, {Name: "b", Age: 30 * time.Second}}
	if diff := cmp.Diff(want, st.Fresh); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
