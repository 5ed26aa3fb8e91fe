// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"encoding/json"
	"testing"

	"github.com/headgate/headgate/api/v1alpha1"
)

// kubectl's table leaves blank what is not in the object: what it shows is written also where it is 0.
func TestTheTableShowsZero(t *testing.T) {
	text, err := json.Marshal(v1alpha1.RolloutStatus{})
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"step", "weightInForce"} {
		if _, ok := fields[field]; !ok {
			t.Errorf("%s has no %s", text, field)
		}
	}
}
