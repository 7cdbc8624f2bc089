//! `#[remote]`: the function becomes a unit struct of its name, which derefs to the function itself and implements `Remote`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Error, FnArg, Ident, ItemFn, Result, ReturnType, Type};

pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !attribute.is_empty() {
        return Err(Error::new_spanned(attribute, "#[remote] takes no arguments"));
    }
    let mut function: ItemFn = syn::parse2(item)?;
    check(&function)?;
    let name = function.sig.ident.clone();
    // In the body, its name is the remote function, as everywhere else.
    let plain = name.unraw();
    let inner = format_ident!("__{plain}");
    function.sig.ident = inner.clone();
    let arguments = argument_types(&function)?;
    let returned = match &function.sig.output {
        ReturnType::Default => syn::parse_quote!(()),
        ReturnType::Type(_, kind) => (**kind).clone(),
    };
    let is_async = function.sig.asyncness.is_some();
    let vis = std::mem::replace(&mut function.vis, syn::Visibility::Inherited);
    let (kept, shown): (Vec<_>, Vec<_>) = function.attrs.drain(..).partition(|attribute| !is_shown(attribute));
    function.attrs = kept;

    let private = quote!(::remotely::__private);
    let fallible = is_result(&returned);
    let output = if fallible { quote!(<#returned as #private::Fallible>::Value) } else { returned.to_token_stream() };
    let target = if is_async {
        quote!(fn(#(#arguments),*) -> ::core::pin::Pin<::std::boxed::Box<
            dyn ::core::future::Future<Output = #returned> + ::core::marker::Send,
        >>)
    } else {
        quote!(fn(#(#arguments),*) -> #returned)
    };
    let names: Vec<Ident> = (0..arguments.len()).map(|n| format_ident!("argument_{n}")).collect();
    let pointer =
        if is_async { quote!(|#(#names),*| ::std::boxed::Box::pin(#inner(#(#names),*))) } else { quote!(#inner) };
    let outcome = outcome(fallible, &private);
    let run = if is_async {
        quote!(#private::Run::Async(|doors, bytes| #private::asynchronous(
            doors, bytes, |(#(#names,)*): (#(#arguments,)*)| async move {
                let returned = #inner(#(#names),*).await;
                #outcome
            },
        )))
    } else {
        quote!(#private::Run::Blocking(|doors, bytes| #private::blocking(
            doors, bytes, |(#(#names,)*): (#(#arguments,)*)| {
                let returned = #inner(#(#names),*);
                #outcome
            },
        )))
    };
    let signature = signature(&arguments, &returned);
    let text = plain.to_string();
    let display = format!("`{text}` as a remote function.");
    let docs = if shown.iter().any(|attribute| attribute.path().is_ident("doc")) {
        None
    } else {
        Some(quote!(#[doc = #display]))
    };

    Ok(quote! {
        #docs
        #(#shown)*
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug)]
        #vis struct #name;

        const _: () = {
            #function

            #[#private::linkme::distributed_slice(#private::FUNCTIONS)]
            #[linkme(crate = #private::linkme)]
            static ENTRY: #private::Entry = #private::Entry {
                name: ::core::concat!(::core::module_path!(), "::", #text),
                signature: #private::signature(#signature),
                run: #run,
            };

            impl ::core::ops::Deref for #name {
                type Target = #target;

                fn deref(&self) -> &Self::Target {
                    const FUNCTION: #target = #pointer;
                    &FUNCTION
                }
            }

            impl #private::Remote for #name {
                type Args = (#(#arguments,)*);
                type Output = #output;

                fn entry() -> &'static #private::Entry {
                    &ENTRY
                }
            }
        };
    })
}

fn check(function: &ItemFn) -> Result<()> {
    let sig = &function.sig;
    let refused: [(Option<Span>, &str); 5] = [
        (
            sig.generics.params.first().map(Spanned::span),
            "a remote function has no generic parameters: which of its forms should the host run?",
        ),
        (sig.generics.where_clause.as_ref().map(Spanned::span), "a remote function has no generic parameters"),
        (sig.abi.as_ref().map(Spanned::span), "a remote function has the ABI of Rust"),
        (sig.unsafety.map(|token| token.span), "a remote function is safe to call"),
        (sig.variadic.as_ref().map(Spanned::span), "a remote function has a fixed number of arguments"),
    ];
    match refused.into_iter().find_map(|(span, why)| Some(Error::new(span?, why))) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn argument_types(function: &ItemFn) -> Result<Vec<Type>> {
    let types = function.sig.inputs.iter().map(|input| match input {
        FnArg::Receiver(receiver) => {
            Err(Error::new_spanned(receiver, "a remote function is no method: pass what it works on as an argument"))
        }
        FnArg::Typed(typed) => match &*typed.ty {
            Type::Reference(reference) => {
                let owned = owned(&reference.elem);
                Err(Error::new_spanned(reference, format!("arguments travel, so they are owned: take {owned}")))
            }
            Type::ImplTrait(kind) => Err(Error::new_spanned(kind, "an argument of a remote function has one type")),
            kind => Ok(kind.clone()),
        },
    });
    types.collect()
}

/// What to take instead of a reference to this.
fn owned(kind: &Type) -> String {
    let text = kind.to_token_stream().to_string().replace(' ', "");
    match (text.as_str(), kind) {
        ("str", _) => "String".into(),
        ("Path" | "std::path::Path", _) => "PathBuf".into(),
        ("OsStr" | "std::ffi::OsStr", _) => "OsString".into(),
        (_, Type::Slice(slice)) => format!("Vec<{}>", slice.elem.to_token_stream()),
        _ => text,
    }
}

/// Attributes that belong to what is seen of the function from outside.
fn is_shown(attribute: &Attribute) -> bool {
    ["doc", "deprecated", "must_use", "cfg"].iter().any(|name| attribute.path().is_ident(name))
}

fn is_result(kind: &Type) -> bool {
    match kind {
        Type::Path(path) => path.path.segments.last().is_some_and(|segment| segment.ident == "Result"),
        _ => false,
    }
}

/// From `returned` to a value or a failure.
fn outcome(fallible: bool, private: &TokenStream) -> TokenStream {
    if !fallible {
        return quote!(::core::result::Result::Ok(returned));
    }
    quote! {
        match #private::Fallible::into_result(returned) {
            ::core::result::Result::Ok(value) => ::core::result::Result::Ok(value),
            ::core::result::Result::Err(error) => {
                #[allow(unused_imports)]
                use #private::{NoValue as _, ViaDebug as _, ViaError as _, WithValue as _};
                let told = #private::Told::new(error);
                let value = (&told).value();
                ::core::result::Result::Err((&told).failure(value))
            }
        }
    }
}

/// The types, as text.
fn signature(arguments: &[Type], returned: &Type) -> String {
    let arguments: Vec<String> = arguments.iter().map(|kind| kind.to_token_stream().to_string()).collect();
    format!("({}) -> {}", arguments.join(", "), returned.to_token_stream())
}
