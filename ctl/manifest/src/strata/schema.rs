//! The fields of the wire types, from their compiled descriptors.

use std::{
    collections::{BTreeMap, HashMap},
    sync::OnceLock,
};

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const PACKAGE: &str = ".strata.types.v1";

/// What may stand in a field.
#[derive(Debug, Clone)]
pub(crate) enum FieldType {
    Text,
    Flag,
    Number {
        max: u64,
    },
    /// One of these words.
    Word(Vec<String>),
    /// A message of this full name.
    Message(String),
    /// Bytes, written as base64.
    Bytes,
    /// Nothing that the types use today.
    Other,
}

/// A field of a message.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) kind: FieldType,
    pub(crate) is_list: bool,
    /// A map from strings to texts or bytes; `kind` is that of its values.
    pub(crate) is_map: bool,
    /// Of the fields with the same number one may be given.
    pub(crate) oneof: Option<i32>,
}

/// Messages by full name, their fields by JSON name.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    messages: HashMap<String, BTreeMap<String, Field>>,
    enums: HashMap<String, Vec<String>>,
    /// The entries of maps, with the type of their values.
    maps: HashMap<String, FieldType>,
    kinds: Vec<String>,
}

impl Schema {
    /// The schema of this build.
    pub(crate) fn get() -> Option<&'static Self> {
        static SCHEMA: OnceLock<Option<Schema>> = OnceLock::new();
        SCHEMA
            .get_or_init(|| FileDescriptorSet::decode(strata_proto::DESCRIPTORS).ok().map(|set| Self::of(&set)))
            .as_ref()
    }

    /// The words for `kind`.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.iter().map(String::as_str)
    }

    /// A field by its JSON name.
    pub(crate) fn field(&self, message: &str, name: &str) -> Option<&Field> {
        self.messages.get(message)?.get(name)
    }

    /// The names of a message's fields.
    pub(crate) fn names(&self, message: &str) -> impl Iterator<Item = &str> {
        self.messages.get(message).into_iter().flat_map(|fields| fields.keys().map(String::as_str))
    }

    fn of(set: &FileDescriptorSet) -> Self {
        let mut schema = Self::default();
        let files = || set.file.iter().filter(|f| f.package() == &PACKAGE[1..]);
        // Names first: fields refer to them.
        for file in files() {
            file.enum_type.iter().for_each(|e| schema.add_enum(PACKAGE, e));
            file.message_type.iter().for_each(|m| schema.add_names(PACKAGE, m));
        }
        for file in files() {
            file.message_type.iter().for_each(|m| schema.add_fields(PACKAGE, m));
        }
        let object = files().flat_map(|f| &f.message_type).find(|m| m.name() == "Object");
        let kinds = object.into_iter().flat_map(|o| &o.field).filter(|f| f.oneof_index.is_some());
        schema.kinds = kinds.filter_map(|f| f.type_name().rsplit('.').next()).map(str::to_owned).collect();
        schema
    }

    fn add_enum(&mut self, parent: &str, e: &EnumDescriptorProto) {
        self.enums.insert(format!("{parent}.{}", e.name()), e.value.iter().map(|v| v.name().to_owned()).collect());
    }

    fn add_names(&mut self, parent: &str, message: &DescriptorProto) {
        let name = format!("{parent}.{}", message.name());
        message.enum_type.iter().for_each(|e| self.add_enum(&name, e));
        message.nested_type.iter().for_each(|m| self.add_names(&name, m));
        if message.options.as_ref().is_some_and(|o| o.map_entry()) {
            let is_bytes = message.field.iter().any(|f| f.name() == "value" && f.r#type() == Type::Bytes);
            self.maps.insert(name, if is_bytes { FieldType::Bytes } else { FieldType::Text });
        }
    }

    fn add_fields(&mut self, parent: &str, message: &DescriptorProto) {
        let name = format!("{parent}.{}", message.name());
        message.nested_type.iter().for_each(|m| self.add_fields(&name, m));
        // Documents have no trace: it belongs to a call, not to an object.
        let shown = message.field.iter().filter(|f| f.name() != "trace_parent");
        let fields = shown.map(|f| (f.json_name().to_owned(), self.field_of(f))).collect();
        self.messages.insert(name, fields);
    }

    fn field_of(&self, field: &FieldDescriptorProto) -> Field {
        let kind = match field.r#type() {
            Type::String => FieldType::Text,
            Type::Bytes => FieldType::Bytes,
            Type::Bool => FieldType::Flag,
            Type::Uint32 => FieldType::Number { max: u64::from(u32::MAX) },
            Type::Uint64 => FieldType::Number { max: u64::MAX },
            Type::Enum => self.enums.get(field.type_name()).map_or(FieldType::Other, |w| FieldType::Word(w.clone())),
            Type::Message => FieldType::Message(field.type_name().to_owned()),
            _ => FieldType::Other,
        };
        let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
        match self.maps.get(field.type_name()) {
            Some(values) => Field { kind: values.clone(), is_map: true, is_list: false, oneof },
            None => Field { kind, is_map: false, is_list: field.label() == Label::Repeated, oneof },
        }
    }
}
