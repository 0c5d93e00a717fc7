package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Report collects what the checks of a configuration find.
type Report struct {
	r    *reader
	path string
}

// Add reports that the value of key breaks a rule; hint says what to do and may
// be empty. key is relative to the struct that is checked ("max_bytes",
// "lanes[2].name"); "" is the struct itself. A key that has a violation already
// gets no second one.
func (c *Report) Add(key, message, hint string) {
	full := key
	if c.path != "" && key != "" {
		full = c.path + "." + key
	} else if key == "" {
		full = c.path
	}
	if c.r.isBad(full) {
		return
	}
	c.r.add(c.r.originOf(full), full, message, hint)
}

// isBad reports whether key or anything above or inside it has a violation.
func (r *reader) isBad(key string) bool {
	for k := range r.bad {
		if k == key || strings.HasPrefix(k, key+".") || strings.HasPrefix(k, key+"[") ||
			k != "" && (strings.HasPrefix(key, k+".") || strings.HasPrefix(key, k+"[")) {
			return true
		}
	}
	return false
}

// originOf gives the place of a key, or of what holds it when it is not set.
func (r *reader) originOf(key string) origin {
	for k := key; k != ""; {
		if o, ok := r.origins[k]; ok {
			return o
		}
		i := strings.LastIndexAny(k, ".[")
		if i < 0 {
			break
		}
		k = k[:i]
	}
	return origin{file: r.src.Path}
}

// check runs the rules of v's types, innermost first.
func (r *reader) check(v reflect.Value, path string) {
	switch {
	case isGroup(v.Type()):
		for _, f := range fieldsOf(v.Type()) {
			r.check(v.Field(f.index), join(path, f.name))
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			r.check(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	}
	rep := &Report{r: r, path: path}
	switch x := v.Addr().Interface().(type) {
	case Checker:
		x.Check(rep)
	case interface{ Validate() error }:
		if err := x.Validate(); err != nil {
			rep.Add("", err.Error(), hintOf(err))
		}
	}
}
