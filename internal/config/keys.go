package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
)

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

// Key describes one key of a configuration.
type Key struct {
	Name    string // "buffer.max_bytes"; "lanes[].name" in the elements of a list
	Env     string // its environment variable; empty for a key inside a list
	Type    string // "size", "duration", "text", "number", "true or false", "list" …
	Default string // as one would write it
	Doc     string // from the doc tag
}

// Describe lists every key of a configuration, in the order of the struct's
// fields. defaults is the struct, or a pointer to it, that holds the defaults.
func Describe(defaults any, envPrefix string) []Key {
	v := reflect.Indirect(reflect.ValueOf(defaults))
	checkShape(v.Type())
	return describe(v, "", envPrefix)
}

func describe(v reflect.Value, path, envPrefix string) (keys []Key) {
	for _, f := range fieldsOf(v.Type()) {
		fv, name := v.Field(f.index), join(path, f.name)
		if isGroup(fv.Type()) {
			keys = append(keys, describe(fv, name, envPrefix)...)
			continue
		}
		k := Key{Name: name, Type: typeName(fv.Type()), Default: textOf(fv), Doc: f.doc}
		if envPrefix != "" && !strings.Contains(name, "[]") {
			k.Env = EnvName(envPrefix, name)
		}
		keys = append(keys, k)
		if fv.Kind() == reflect.Slice && isGroup(fv.Type().Elem()) {
			keys = append(keys, describe(reflect.New(fv.Type().Elem()).Elem(), name+"[]", envPrefix)...)
		}
	}
	return keys
}

// textOf gives a value as one would write it.
func textOf(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return string(text)
		}
		return ""
	}
	switch v.Kind() {
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = textOf(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.Struct:
		parts := []string{}
		for _, f := range fieldsOf(v.Type()) {
			parts = append(parts, f.name+": "+textOf(v.Field(f.index)))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return fmt.Sprint(v.Interface())
}

// typeName says in a word what a value of t looks like.
func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Bytes]():
		return "size"
	case reflect.TypeFor[Duration]():
		return "duration"
	}
	if reflect.PointerTo(t).Implements(textType) {
		return "text"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "list"
	case reflect.Struct:
		return "group of keys"
	}
	return "number"
}

// isGroup reports whether t is a struct whose fields are keys.
func isGroup(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(textType)
}

type field struct {
	name, doc string
	index     int
}

// fieldsOf lists the fields of struct t that have a yaml tag.
func fieldsOf(t reflect.Type) (fields []field) {
	for i := range t.NumField() {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && name != "-" {
			fields = append(fields, field{name, f.Tag.Get("doc"), i})
		}
	}
	return fields
}

type keyPath struct {
	path  string
	index []int
}

// keysOf lists the keys of struct t that are not groups, without those inside
// lists.
func keysOf(t reflect.Type, path string) (keys []keyPath) {
	for _, f := range fieldsOf(t) {
		if ft := t.Field(f.index).Type; isGroup(ft) {
			for _, k := range keysOf(ft, join(path, f.name)) {
				keys = append(keys, keyPath{k.path, append([]int{f.index}, k.index...)})
			}
		} else {
			keys = append(keys, keyPath{join(path, f.name), []int{f.index}})
		}
	}
	return keys
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// checkShape panics when t holds a kind that a configuration cannot be read
// into: a mistake of the program, found by its first test.
func checkShape(t reflect.Type) {
	if reflect.PointerTo(t).Implements(textType) {
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		for _, f := range fieldsOf(t) {
			if !t.Field(f.index).IsExported() {
				panic(fmt.Sprintf("config: field %s of %s is not exported", f.name, t))
			}
			checkShape(t.Field(f.index).Type)
		}
	case reflect.Slice:
		checkShape(t.Elem())
	case reflect.String, reflect.Bool, reflect.Float64, reflect.Float32,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
	default:
		panic(fmt.Sprintf("config: a %s cannot be configured", t))
	}
}
