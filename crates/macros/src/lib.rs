//! The attributes of Remotely. What they expand to stands on `remotely::__private` and on nothing else.

mod main_function;
mod remote;

use proc_macro::TokenStream;

/// Makes a function callable on other machines: `tunnel.call(function, (arguments,))`.
///
/// Arguments and what is returned travel by serde, so they are owned types that implement `Serialize` and `Deserialize`. Of a
/// function that returns a `Result` (by this name, whatever module it is from), the value and the error travel apart: the
/// caller gets the value, or an error that tells this one with its chain, and holds the error itself where it can be
/// serialised.
///
/// Plain and async functions will do; not generic ones, and no methods. The function can be called here as before. Its
/// name is now that of a type, which stands for it in [`Tunnel::call`]; so a variable of the same name cannot be introduced where
/// it is in scope.
///
/// [`Tunnel::call`]: https://docs.rs/remotely/latest/remotely/struct.Tunnel.html#method.call
#[proc_macro_attribute]
pub fn remote(attribute: TokenStream, item: TokenStream) -> TokenStream {
    remote::expand(attribute.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes an async function the `main` of a program: it runs on a Tokio runtime of several threads. On a host, the same
/// program becomes the agent before `main` is reached.
#[proc_macro_attribute]
pub fn main(attribute: TokenStream, item: TokenStream) -> TokenStream {
    main_function::expand(attribute.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
