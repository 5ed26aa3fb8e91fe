// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/e2e/faults/proxyfault"
)

// A Prometheus' counters begin again when that is asked for, each by itself, and once more when they really do.
func TestCountersBeginAgain(t *testing.T) {
	value := ""
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"`+r.URL.RawQuery+`":"x"},"value":[1.5,"`+value+`"]}]}}`)
	}))
	t.Cleanup(behind.Close)
	next, err := forwarder(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := &faultyProxy{next: next}
	var got []string
	ask := func(label, of string) {
		value = of
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?"+label, nil))
		_, answer, _ := strings.Cut(w.Body.String(), `"value":[1.5,"`)
		answer, _, _ = strings.Cut(answer, `"`)
		got = append(got, answer)
	}
	for range 2 {
		p.faults.Store(&proxyfault.Faults{Reset: true})
		p.began.forget()
		ask("__name__", "7")
		ask("a", "100") // a time
		ask("__name__", "9.5")
		ask("__name__", "3") // its process has really been started again
		ask("__name__", "5")
	}
	p.faults.Store(&proxyfault.Faults{})
	ask("__name__", "9")
	once := []string{"0", "100", "2.5", "3", "5"}
	if want := slices.Concat(once, once, []string{"9"}); !slices.Equal(got, want) {
		t.Errorf("the answers are %v, want %v", got, want)
	}
}
