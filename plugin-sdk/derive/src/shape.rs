//! From a type's definition to the constant that says what it consists of.

use crate::{attributes::Attributes, case::renamed};
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DataEnum, DeriveInput, Fields, FieldsNamed, GenericArgument, PathArguments, Type};

/// The implementation of `ConfigSchema` for a type.
pub(crate) fn of(input: &DeriveInput) -> TokenStream {
    let name = &input.ident;
    let attributes = Attributes::of(&input.attrs);
    let shape = if attributes.is_opaque {
        quote!(::vers_plugin::schema::Shape::Any)
    } else {
        match &input.data {
            Data::Struct(data) => of_struct(&data.fields, &attributes),
            Data::Enum(data) => of_enum(data, &attributes),
            Data::Union(_) => quote!(::vers_plugin::schema::Shape::Any),
        }
    };
    let description = &attributes.description;
    let (of, types, conditions) = input.generics.split_for_impl();
    quote! {
        impl #of ::vers_plugin::schema::ConfigSchema for #name #types #conditions {
            const SHAPE: ::vers_plugin::schema::Shape = #shape;
            const DESCRIPTION: &'static str = #description;
        }
    }
}

fn of_struct(fields: &Fields, attributes: &Attributes) -> TokenStream {
    match fields {
        Fields::Named(fields) if attributes.is_transparent => {
            fields.named.first().map_or_else(any, |field| of_type(&field.ty))
        }
        Fields::Named(fields) => of_table(fields, attributes),
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
            fields.unnamed.first().map_or_else(any, |field| of_type(&field.ty))
        }
        Fields::Unnamed(_) | Fields::Unit => any(),
    }
}

fn of_table(fields: &FieldsNamed, of_all: &Attributes) -> TokenStream {
    let mut is_closed = of_all.is_closed;
    let mut keys = Vec::new();
    for field in &fields.named {
        let attributes = Attributes::of(&field.attrs);
        if attributes.is_skipped {
            continue;
        }
        if attributes.is_flat {
            // Its keys are this table's, and are not known here.
            is_closed = false;
            continue;
        }
        let own = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
        let own = own.strip_prefix("r#").unwrap_or(&own);
        let name = attributes.rename.clone().unwrap_or_else(|| renamed(own, of_all.rename_all.as_deref()));
        let shape = match attributes.with.as_deref() {
            Some(with) if with.rsplit("::").next() == Some("duration") => {
                quote!(::vers_plugin::schema::DURATION)
            }
            Some(_) => any(),
            None if attributes.is_opaque => any(),
            None => of_type(&field.ty),
        };
        let is_required = !(attributes.has_default || of_all.has_default || is_option(&field.ty));
        let description = &attributes.description;
        keys.push(quote! {
            ::vers_plugin::schema::Field {
                name: #name,
                description: #description,
                is_required: #is_required,
                shape: #shape,
            }
        });
    }
    quote!(::vers_plugin::schema::Shape::Struct { fields: &[#(#keys),*], is_closed: #is_closed })
}

/// Words, where no variant has more than its name.
fn of_enum(data: &DataEnum, of_all: &Attributes) -> TokenStream {
    let mut words = Vec::new();
    for variant in &data.variants {
        let attributes = Attributes::of(&variant.attrs);
        if attributes.is_skipped {
            continue;
        }
        if !matches!(variant.fields, Fields::Unit) {
            return any();
        }
        let own = variant.ident.to_string();
        words.push(attributes.rename.unwrap_or_else(|| renamed(&own, of_all.rename_all.as_deref())));
    }
    quote!(::vers_plugin::schema::Shape::OneOf(&[#(#words),*]))
}

/// A type that says nothing about itself may be anything; that is found out where its constant is
/// computed, since a macro sees only names.
fn of_type(ty: &Type) -> TokenStream {
    quote! {{
        use ::vers_plugin::schema::Unknown as _;
        ::vers_plugin::schema::Probe::<#ty>::SHAPE
    }}
}

fn any() -> TokenStream {
    quote!(::vers_plugin::schema::Shape::Any)
}

fn is_option(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|last| {
        let has_type = matches!(&last.arguments, PathArguments::AngleBracketed(arguments)
            if arguments.args.iter().any(|argument| matches!(argument, GenericArgument::Type(_))));
        last.ident == "Option" && has_type
    })
}
