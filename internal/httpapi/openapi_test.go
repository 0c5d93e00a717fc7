package httpapi

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

type document struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Parameters  []struct {
			Name     string `json:"name"`
			In       string `json:"in"`
			Required bool   `json:"required"`
		} `json:"parameters"`
		Responses map[string]json.RawMessage `json:"responses"`
	} `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type schema struct {
	Ref        string            `json:"$ref"`
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
	AllOf      []schema          `json:"allOf"`
	Required   []string          `json:"required"`
	Enum       []any             `json:"enum"`
}

func readDocument(t *testing.T) document {
	t.Helper()
	var d document
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// The document names exactly the routes, and of each exactly the parameters.
func TestDocumentMatchesRoutes(t *testing.T) {
	d := readDocument(t)
	if !strings.HasPrefix(d.OpenAPI, "3.1.") {
		t.Errorf("openapi is %q", d.OpenAPI)
	}
	ids := map[string]bool{}
	served := map[string]bool{}
	for _, rt := range routes {
		served[rt.path] = true
		ops := d.Paths[rt.path]
		op, ok := ops["get"]
		if !ok || len(ops) != 1 {
			t.Errorf("%s: the document has operations %v, want get alone", rt.path, ops)
			continue
		}
		if op.OperationID == "" || ids[op.OperationID] {
			t.Errorf("%s: operationId %q is missing or stands twice", rt.path, op.OperationID)
		}
		ids[op.OperationID] = true
		if op.Responses["200"] == nil || op.Responses["default"] == nil {
			t.Errorf("%s: no answer described for 200 and default", rt.path)
		}
		var query, inPath []string
		for _, p := range op.Parameters {
			switch p.In {
			case "query":
				query = append(query, p.Name)
			case "path":
				inPath = append(inPath, "{"+p.Name+"}")
			}
			if p.Required != (p.In == "path") {
				t.Errorf("%s: parameter %s: required is %v", rt.path, p.Name, p.Required)
			}
		}
		if !sameSet(query, rt.params) {
			t.Errorf("%s: the document has the parameters %v, the route %v", rt.path, query, rt.params)
		}
		var want []string
		for _, part := range strings.Split(rt.path, "/") {
			if strings.HasPrefix(part, "{") {
				want = append(want, part)
			}
		}
		if !sameSet(inPath, want) {
			t.Errorf("%s: the document has the path parameters %v", rt.path, inPath)
		}
	}
	for path := range d.Paths {
		if !served[path] {
			t.Errorf("the document names %s, which is not served", path)
		}
	}
}

// What is marshalled has exactly the properties that the document says.
func TestDocumentMatchesAnswers(t *testing.T) {
	d := readDocument(t)
	for name, v := range map[string]any{
		"Problem": Problem{}, "Log": LogInfo{}, "Device": Device{}, "DeviceList": DeviceList{}, "Ranges": Ranges{},
		"Loss": Loss{}, "Stream": Stream{}, "DeviceStreams": DeviceStreams{}, "Record": Line{},
		"Status": Status{}, "CodecStatus": CodecStatus{}, "DeviceCodec": DeviceCodec{}, "Duplicate": Duplicate{}, "GateStatus": GateStatus{}, "TLSStatus": TLSStatus{},
	} {
		s, ok := d.Components.Schemas[name]
		if !ok {
			t.Errorf("the document has no schema %s", name)
			continue
		}
		compare(t, d, name, s, reflect.TypeOf(v))
	}
	if n := len(d.Components.Schemas); n != 15 {
		t.Errorf("%d schemas, of which 15 are compared", n)
	}
	var reasons []any
	for _, r := range stream.Reasons {
		reasons = append(reasons, r.String())
	}
	if got := d.Components.Schemas["Loss"].Properties["reason"].Enum; !reflect.DeepEqual(got, reasons) {
		t.Errorf("the document knows the reasons %v, the code %v", got, reasons)
	}
}

func compare(t *testing.T, d document, where string, s schema, typ reflect.Type) {
	t.Helper()
	props, required := map[string]schema{}, map[string]bool{}
	s.collect(d, props, required)
	fields := map[string]bool{}
	for _, f := range jsonFields(typ) {
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = true
		p, ok := props[name]
		if !ok {
			t.Errorf("%s.%s is not in the document", where, name)
			continue
		}
		if where != "Record" && required[name] == strings.Contains(opts, "omitempty") {
			t.Errorf("%s.%s: the document says required %v", where, name, required[name])
		}
		inner := f.Type
		for inner.Kind() == reflect.Slice && p.Items != nil {
			inner, p = inner.Elem(), *p.Items
		}
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && p.Ref == "" && p.Properties != nil {
			compare(t, d, where+"."+name, p, inner)
		}
	}
	for name := range props {
		if !fields[name] {
			t.Errorf("the document has %s.%s, the code has not", where, name)
		}
	}
}

// jsonFields lists what encoding/json writes of a struct, embedded ones flattened.
func jsonFields(typ reflect.Type) (fields []reflect.StructField) {
	for i := range typ.NumField() {
		switch f := typ.Field(i); {
		case f.Anonymous:
			fields = append(fields, jsonFields(f.Type)...)
		case f.IsExported():
			fields = append(fields, f)
		}
	}
	return fields
}

func (s schema) collect(d document, props map[string]schema, required map[string]bool) {
	if s.Ref != "" {
		s = d.Components.Schemas[s.Ref[strings.LastIndex(s.Ref, "/")+1:]]
	}
	for _, part := range s.AllOf {
		part.collect(d, props, required)
	}
	for name, p := range s.Properties {
		props[name] = p
	}
	for _, name := range s.Required {
		required[name] = true
	}
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
