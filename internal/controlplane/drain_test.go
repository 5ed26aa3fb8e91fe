// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

func TestDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told, tell := context.WithCancel(t.Context())
		ctx := Drained(told, DrainPeriod)
		time.Sleep(time.Hour)
		if ctx.Err() != nil {
			t.Fatal("it ended before it was told to")
		}
		tell()
		time.Sleep(DrainPeriod - time.Nanosecond)
		synctest.Wait()
		if ctx.Err() != nil {
			t.Fatal("it ended before those who use it could move on")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if ctx.Err() == nil {
			t.Fatal("it did not end")
		}
	})
}

// A client that keeps its connections gives each up with the first answer after the server was told to end, so that
// none is left which the server could close under a request.
func TestDrainedServerEndsConnections(t *testing.T) {
	told, tell := context.WithCancel(t.Context())
	mux := http.NewServeMux()
	hooks := DrainedServer(told, webhook.NewServer(webhook.Options{WebhookMux: mux}))
	hooks.Register("/hook", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "admitted") }))
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)

	ask := func() (closes bool) {
		t.Helper()
		resp, err := server.Client().Post(server.URL+"/hook", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); string(body) != "admitted" || err != nil {
			t.Fatalf("the answer is %q (%v), want that of the hook", body, err)
		}
		return resp.Close
	}
	if ask() {
		t.Error("connections are not kept while the server goes on")
	}
	tell()
	if !ask() {
		t.Error("the client may keep a connection that the server is about to close")
	}
}
