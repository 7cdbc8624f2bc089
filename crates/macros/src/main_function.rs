//! `#[main]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, Result};

pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !attribute.is_empty() {
        return Err(Error::new_spanned(attribute, "#[remotely::main] takes no arguments"));
    }
    let ItemFn { attrs, vis, mut sig, block } = syn::parse2(item)?;
    if sig.asyncness.take().is_none() {
        return Err(Error::new_spanned(sig.fn_token, "#[remotely::main] belongs on an async function"));
    }
    if let Some(input) = sig.inputs.first() {
        return Err(Error::new_spanned(input, "main has no arguments; see std::env::args"));
    }
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            ::remotely::__private::block_on(async move #block)
        }
    })
}
