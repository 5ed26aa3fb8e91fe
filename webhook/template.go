// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
)

// digestLength is the number of hex digits of a digest: 64 bits, far more than the few templates of one
// workload need, and short enough to be read.
const digestLength = 16

// EqualTemplate says whether the Deployment controller would take two templates for the same revision:
// semantically equal but for the pod-template-hash label.
func EqualTemplate(a, b *corev1.PodTemplateSpec) bool {
	x, y := withoutHash(a), withoutHash(b)
	return apiequality.Semantic.DeepEqual(&x, &y)
}

// TemplateDigest names a template: 16 hex digits of the SHA-256 of its canonical JSON without the
// pod-template-hash label. Templates that are equal for EqualTemplate have equal digests; a ReplicaSet
// and the Deployment that made it have the same.
func TemplateDigest(t corev1.PodTemplateSpec) string {
	t = withoutHash(t.DeepCopy())
	canonicalize(reflect.ValueOf(&t).Elem())
	b, err := json.Marshal(t)
	if err != nil { // no field of a template that was decoded from JSON can fail to be encoded
		return ""
	}
	return digest(b)
}

// BypassDigest names the value of the bypass annotation; the record lists those that were used. An
// empty value has none.
func BypassDigest(value string) string {
	if value == "" {
		return ""
	}
	return digest([]byte(value))
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])[:digestLength]
}

// withoutHash is a copy that shares everything with t but the labels.
func withoutHash(t *corev1.PodTemplateSpec) corev1.PodTemplateSpec {
	c := *t
	if _, ok := c.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; ok {
		c.Labels = maps.Clone(c.Labels)
		delete(c.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	}
	return c
}

var quantityType = reflect.TypeFor[resource.Quantity]()

// canonicalize rewrites a value in place so that semantic equality becomes equality of the JSON: empty
// maps and slices become nil, and quantities are written in one way (1Gi and 1073741824 are equal).
func canonicalize(v reflect.Value) {
	if v.Type() == quantityType {
		q := v.Addr().Interface().(*resource.Quantity)
		*q = *resource.NewDecimalQuantity(*q.AsDec(), resource.DecimalSI)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() { // unexported fields (in time.Time) have one form only
				canonicalize(v.Field(i))
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			canonicalize(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			canonicalize(v.Index(i))
		}
		setNilWhenEmpty(v)
	case reflect.Map:
		canonicalizeMap(v)
		setNilWhenEmpty(v)
	}
}

// canonicalizeMap replaces the values one by one: map elements can't be changed in place.
func canonicalizeMap(v reflect.Value) {
	if v.Type().Elem().Kind() == reflect.String {
		return
	}
	for iter := v.MapRange(); iter.Next(); {
		e := reflect.New(v.Type().Elem()).Elem()
		e.Set(iter.Value())
		canonicalize(e)
		v.SetMapIndex(iter.Key(), e)
	}
}

func setNilWhenEmpty(v reflect.Value) {
	if v.Len() == 0 {
		v.SetZero()
	}
}
