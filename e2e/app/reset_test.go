// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/e2e/faults/proxyfault"
)

// A Prometheus' counters begin again when that is asked for, each by itself, and once more when they really do.
func TestCountersBeginAgain(t *testing.T) {
	value := ""
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"q":"`+r.FormValue("query")+`"},"value":[1.5,"`+value+`"]}]}}`)
	}))
	t.Cleanup(behind.Close)
	next, err := forwarder(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := &faultyProxy{next: next}
	var got []string
	ask := func(query, of string) {
		value = of
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/api/v1/query", strings.NewReader(url.Values{"query": {query}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		p.ServeHTTP(w, r)
		_, answer, _ := strings.Cut(w.Body.String(), `"value":[1.5,"`)
		answer, _, _ = strings.Cut(answer, `"`)
		got = append(got, answer)
	}
	for range 2 {
		p.faults.Store(&proxyfault.Faults{Reset: true})
		p.began.forget()
		ask("a", "7")
		ask("b", "100")
		ask("a", "9.5")
		ask("a", "3") // its process has really been started again
		ask("a", "5")
	}
	p.faults.Store(&proxyfault.Faults{})
	ask("a", "9")
	once := []string{"0", "0", "2.5", "3", "5"}
	if want := slices.Concat(once, once, []string{"9"}); !slices.Equal(got, want) {
		t.Errorf("the answers are %v, want %v", got, want)
	}
}
