// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/headgate/headgate/internal/playedapi"
)

// said hands on what is logged as an error.
type said chan error

func (said) Init(logr.RuntimeInfo)                 {}
func (said) Enabled(int) bool                      { return false }
func (said) Info(int, string, ...any)              {}
func (s said) WithValues(...any) logr.LogSink      { return s }
func (s said) WithName(string) logr.LogSink        { return s }
func (s said) Error(err error, _ string, _ ...any) { s <- err }

// emptyCluster answers lists and watches of a cluster in which there is nothing.
func emptyCluster(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	kind := map[string]string{
		"secrets":                       `"apiVersion":"v1","kind":"SecretList"`,
		"mutatingwebhookconfigurations": `"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingWebhookConfigurationList"`,
	}[path.Base(r.URL.Path)]
	switch {
	case r.URL.Query().Get("sendInitialEvents") != "":
		http.Error(w, "list first", http.StatusBadRequest)
	case r.URL.Query().Get("watch") != "":
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		fmt.Fprintf(w, `{%s,"metadata":{"resourceVersion":"1000"},"items":[]}`, kind)
	}
}

// A leader that ended would come back without the certificate, and so would the next one.
func TestALeaderWithoutTheSecretGoesOn(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(http.HandlerFunc(emptyCluster))
	t.Cleanup(func() {
		api.CloseClientConnections() // watches of reflectors that have not noticed yet
		api.Close()
	})
	errs := make(said, 100)
	mgr, err := ctrl.NewManager(&rest.Config{Host: api.URL}, ctrl.Options{
		Scheme: scheme, MapperProvider: playedapi.Mapper(scheme), Metrics: metricsserver.Options{BindAddress: "0"}, Logger: logr.New(errs),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := newKeeper().Rotate(mgr, []string{serverName}); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	select {
	case err := <-errs:
		if !apierrors.IsNotFound(err) {
			t.Errorf("it says %v", err)
		}
	case err := <-done:
		t.Fatalf("it ended: %v", err)
	case <-time.After(time.Minute):
		t.Error("it says nothing")
	}
	end()
	if err := <-done; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestTheRotationIsTriedAgainWhereNothingIsLostByIt(t *testing.T) {
	gone := apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, "headgate-certs")
	other := errors.New("could not mount certs")
	for name, tc := range map[string]struct {
		starts []error
		want   error
		after  time.Duration
	}{
		"it ends as it should":                      {[]error{nil}, nil, 0},
		"without a Secret, until somebody makes it": {[]error{gone, gone, nil}, nil, 2 * rotateAgain},
		"a Secret that can't be written":            {[]error{wait.ErrorInterrupted(nil), nil}, nil, rotateAgain},
		"what it can't begin again after":           {[]error{gone, other}, other, rotateAgain},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				starts, began := tc.starts, time.Now()
				err := patient{log: logr.Discard(), start: func(context.Context) error {
					err := starts[0]
					starts = starts[1:]
					return err
				}}.Start(t.Context())
				if !errors.Is(err, tc.want) || len(starts) > 0 || time.Since(began) != tc.after {
					t.Errorf("it returned %v after %s with %d starts to come", err, time.Since(began), len(starts))
				}
			})
		})
	}
}
